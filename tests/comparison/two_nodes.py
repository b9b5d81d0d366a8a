"""Two Ray nodes with one CPU each; prints where they are, and ends with its input."""

import json
import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": quick})
    second = cluster.add_node(**node)
    raylet = second.all_processes["raylet"][0].process.pid
    print(json.dumps({"address": cluster.address, "second": raylet}), flush=True)
    sys.stdin.read()
    cluster.shutdown()
