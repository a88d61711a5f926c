"""The installation with the controller of structured DRA, its receiver of alerts and its webhook."""

from __future__ import annotations

import base64
import json
import pathlib
from typing import Final

import trustme

from tests.e2e.api import Doc
from tests.e2e.controllers import CONTROLLER, ControlledDriver
from tests.e2e.driver import NAMESPACE, ROOT

WEBHOOK: Final = "intel-gpu-dra-controller"
SECRET: Final = "controller-tls"
HOST: Final = f"controller-webhook.{NAMESPACE}.svc"
SETTINGS: Final = """\
apiVersion: gpu.intel.com/v1alpha1
kind: ControllerConfiguration
alerts: {port: 9178}
webhook: {port: 9443}
watchGrace: 5s
"""


class WatchedDriver(ControlledDriver):
    components = ("controller", "alert-receiver", "webhook", "simulate")

    def install(self, work: pathlib.Path) -> None:
        """As the components' comments say: a definition for alerts where the server has no DeviceTaintRules, a certificate, and the word to
        the API server about who signed it."""
        if not self.has_taint_rules:
            self.kubectl("apply", "-f", str(ROOT / "manifests" / "crds" / "gpuallocationstates.yaml"))
            self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        if self.api.get("Namespace", NAMESPACE) is None:
            self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.certify()
        super().install(work)
        self.api.patch("ConfigMap", "controller-settings", {"data": {"controller.yaml": SETTINGS}}, NAMESPACE)
        self.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{CONTROLLER}")
        self.trust()
        self.kubectl("-n", NAMESPACE, "rollout", "status", "--timeout=60s", f"deployment/{CONTROLLER}")

    def uninstall_controller(self) -> None:
        """What the components added."""
        self.api.delete("ValidatingWebhookConfiguration", WEBHOOK)
        self.api.delete("Deployment", CONTROLLER, NAMESPACE)
        self.api.wait("Pod", lambda _: not self.controllers(), namespace=NAMESPACE, what="no controller")

    @property
    def has_taint_rules(self) -> bool:
        served = self.api.raw_get(f"/apis/resource.k8s.io/{self.api.dra}")["resources"]
        return any(resource["name"] == "devicetaintrules" for resource in served)

    # --- the webhook's certificate

    def certify(self) -> None:
        """A new certificate by a new authority in the Secret."""
        self.authority = trustme.CA(organization_name="tests")
        leaf = self.authority.issue_cert(HOST)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        files = {"tls.crt": chain, "tls.key": leaf.private_key_pem.bytes()}
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        if self.api.get("Secret", SECRET, NAMESPACE) is not None:
            self.api.patch("Secret", SECRET, {"data": data}, NAMESPACE)
            return
        head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "type": "kubernetes.io/tls"}
        self.api.create({**head, "data": data}, NAMESPACE)

    def trust(self) -> None:
        """Have the API server believe certificates of the authority; until then every call fails, and it admits everything."""
        bundle = base64.b64encode(self.authority.cert_pem.bytes()).decode()
        patch = json.dumps([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}])
        self.kubectl("patch", "validatingwebhookconfiguration", WEBHOOK, "--type=json", f"--patch={patch}")

    def refresh_certificate(self) -> None:
        """Have the kubelet look at the Secret now; by itself it does about once a minute."""
        for pod in self.controllers():
            annotations = {"certified": self.authority.cert_pem.bytes().hex()[-40:]}
            self.api.patch("Pod", pod["metadata"]["name"], {"metadata": {"annotations": annotations}}, NAMESPACE)

    # --- alerts

    def alert(self, status: str, device: str, *, name: str = "GpuTooHot") -> None:
        """Alertmanager's word about a device of the node, to one of the controllers."""
        bdf = f"0000:{device[5:7]}:{device[8:10]}.{device[11]}"
        labels = {"alertname": name, "node": self.node, "pci_bdf": bdf, "pci_dev": device.rpartition("-")[2]}
        body: Doc = {"version": "4", "status": status, "groupLabels": {}, "alerts": [{"status": status, "labels": labels}]}
        pod = self.controllers()[0]["metadata"]["name"]
        self.api.raw_post(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9178/proxy/alertmanager/api/v1/alerts", body)

    def tainted(self) -> set[str]:
        """Devices of the node that an alert has tainted, by where this release keeps taints."""
        if self.has_taint_rules:
            rules = self.api.list("DeviceTaintRule", label_selector="gpu.intel.com/alert=true")
            return {rule["spec"]["deviceSelector"]["device"] for rule in rules}
        keys = {name: [taint["key"] for taint in device.get("taints") or []] for name, device in self.devices().items()}
        return {name for name, of in keys.items() if "gpu.intel.com/alert" in of}
