"""The API server through the official Kubernetes client, without asyncio or trio: for `kubectl intel-gpu`.

Of the client are used what it knows of kubeconfigs (exec plugins, auth providers, proxies) and its connections; objects stay JSON, because
its models know one version of each kind and drop the fields that they do not know.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from nursery_apps.kube_reader import Answer, NoAnswer, Ran

TIMEOUT_SECONDS: Final = 15.0
"""Of one request, where nothing else is said."""


class OfficialClient:
    """A KubeReader."""

    def __init__(self, *, kubeconfig: str | None, context: str | None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """
        Args:
            kubeconfig: path, or several with `:` between; None for what kubectl would read, or the pod's account inside a cluster.

        Raises:
            NoAnswer: none can be used.
        """
        found = client.Configuration()
        logging.getLogger("kubernetes").setLevel(logging.CRITICAL)  # what it has to say comes as an exception, too
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self.namespace = "default"
        try:
            if kubeconfig is None and context is None and "KUBECONFIG" not in os.environ and _in_cluster():
                config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=kubeconfig, context=context, client_configuration=found, persist_config=False
                )
                self.namespace = _namespace(kubeconfig, context)
        except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise NoAnswer(f"cannot use kubeconfig {where}: {_line(error)}") from None
        found.retries = urllib3.Retry(total=0)
        self._timeout = timeout_seconds
        self._server = str(found.host)
        self._client = client.ApiClient(found)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        headers = {"Accept": "application/json"}
        try:
            method, url, sent, _, _ = self._client.param_serialize(
                "GET", path, query_params=list((query or {}).items()), header_params=headers, auth_settings=["BearerToken"]
            )
            response: Any = self._client.call_api(method, url, header_params=sent, _request_timeout=self._timeout)
            return Answer(int(response.status), bytes(response.read()))
        except ApiException as error:
            if error.status:
                return Answer(int(error.status), str(error.body or "").encode())
            raise NoAnswer(f"the API server {self._server} gives no answer: {_line(error.reason or error)}") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if _is_late(error):
                raise NoAnswer(f"the API server {self._server} gives no answer within {self._timeout:g} s") from None
            raise NoAnswer(f"the API server {self._server} gives no answer: {_line(error)}") from None

    def run(self, namespace: str, pod: str, command: Sequence[str]) -> Ran:
        from kubernetes import stream  # noqa: PLC0415  websockets, which other commands need not wait for

        ended: list[Ran | NoAnswer] = []
        # The client connects without a deadline of its own. A thread that is given up on ends with the program, which is soon.
        work = threading.Thread(target=lambda: ended.append(self._ran(stream.stream, namespace, pod, command)), daemon=True)
        work.start()
        work.join(self._timeout)
        if not ended:
            raise NoAnswer(f"{namespace}/{pod}: {command[0]} did not end within {self._timeout:g} s")
        if isinstance(ended[0], NoAnswer):
            raise ended[0]
        return ended[0]

    def _ran(self, stream: Callable[..., Any], namespace: str, pod: str, command: Sequence[str]) -> Ran | NoAnswer:
        from websocket import WebSocketException  # noqa: PLC0415

        # `stream` puts a function of its own into the client that it is given.
        pods = client.CoreV1Api(client.ApiClient(self._client.configuration))
        try:
            talk: Any = stream(
                pods.connect_get_namespaced_pod_exec, pod, namespace, command=list(command), stdout=True, stderr=True, stdin=False,
                tty=False, _preload_content=False,
            )  # fmt: skip
            try:
                talk.run_forever()
                out, err, status = (talk.read_channel(channel) for channel in (1, 2, 3))
            finally:
                talk.sock.shutdown()  # `close` waits for the other side, three seconds
        except ApiException as error:
            return NoAnswer(f"{namespace}/{pod}: cannot run {command[0]} there: {_refusal(error, namespace)}")
        except (WebSocketException, OSError, ValueError) as error:
            return NoAnswer(f"{namespace}/{pod}: cannot run {command[0]} there: {_line(error)}")
        code, why = _ending(status)
        return Ran(code, out, err) if code is not None else NoAnswer(f"{namespace}/{pod}: cannot run {command[0]} there: {why}")


def _ending(status: str) -> tuple[int | None, str]:
    """Exit code, or why there is none: from the Status that the kubelet sends last."""
    try:
        told = json.loads(status)
        if told["status"] == "Success":
            return 0, ""
        causes = (told.get("details") or {}).get("causes") or ()
        return next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), None), str(told.get("message"))
    except (ValueError, TypeError, KeyError):
        return None, "the connection ended before the command did"


def _refusal(error: ApiException, namespace: str) -> str:
    """The client hides the handshake's answer behind its exception."""
    refused = error.__context__
    status = getattr(refused, "status_code", None)
    if status == 403:
        return f"not allowed: this needs the rights to get and create pods/exec in namespace {namespace} (docs/kubectl-plugin.md)"
    if status is None:
        return _line(error.reason or error)
    body = (getattr(refused, "resp_body", None) or b"").decode(errors="replace")
    with contextlib.suppress(ValueError, TypeError, KeyError):
        body = str(json.loads(body)["message"])
    return f"{status}: {_line(body or 'no reason given')[:200]}"


def _is_late(error: Exception) -> bool:
    reason = getattr(error, "reason", None) or error
    return isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(reason, urllib3.exceptions.NewConnectionError)


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not os.path.exists(os.path.expanduser("~/.kube/config"))


def _namespace(kubeconfig: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    chosen = next((each for each in contexts if each["name"] == context), active) if context is not None else active
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _line(error: object) -> str:
    """Without the pool and the object's address that urllib3 puts before a reason."""
    reason: object = getattr(error, "reason", None) or error
    text = " ".join(str(reason).split()) or type(error).__name__
    return text.rpartition(">: ")[2] or text
