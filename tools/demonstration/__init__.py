"""`tools/demo`: the story that a newcomer watches, told by separate processes that know nothing of each other but sockets."""
