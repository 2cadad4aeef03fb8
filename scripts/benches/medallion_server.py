"""medallion, the reference server of TAXII 2.1, over one collection. Runs in an environment of its own, as a child.

usage: medallion_server.py DATA.json PASSWORD     prints its port, and serves until its standard input ends
"""

import json
import logging
import sys
import threading

from medallion import application_instance, register_blueprints, set_config
from werkzeug.serving import make_server

PAGE = 1_000


def main() -> None:
    """Serve."""
    data, password = sys.argv[1:]
    configuration = {
        "backend": {"module": "medallion.backends.memory_backend", "module_class": "MemoryBackend", "filename": data},
        "users": {"bench": password},
        "taxii": {"max_page_size": PAGE},
    }
    for name in ("users", "taxii", "backend"):
        set_config(application_instance, name, configuration)
    register_blueprints(application_instance)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application_instance, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
