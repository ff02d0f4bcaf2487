# SPDX-License-Identifier: Apache-2.0
"""The counter of MPI traffic, on a job whose traffic is known, and against the calls that the runtime makes."""
import json
import os
import re
from pathlib import Path

BUILD = Path(os.environ["NEOLOOM_BUILD_DIR"])
SOURCE = Path(os.environ["NEOLOOM_SOURCE_DIR"])


# Heartbeats go from thread to thread, whatever the ranks compute: they belong to no step.
HEARTBEAT_CALLS = {"MPI_Isend", "MPI_Irecv"}


def without_heartbeats(calls):
    return {name: tally for name, tally in calls.items() if name not in HEARTBEAT_CALLS}


def reports(job, tmp_path, ranks):
    ended = job.run(ranks, "count_bytes",
                    exported={"LD_PRELOAD": BUILD / "libpmpi_counter.so", "NL_PMPI_OUT": tmp_path / "mpi"})
    assert ended.code == 0, ended.err
    return [json.loads((tmp_path / f"mpi.{rank}").read_text()) for rank in range(ranks)]


def test_every_rank_reports_each_step_apart(job, tmp_path):
    for rank, report in enumerate(reports(job, tmp_path, 2)):
        assert (report["rank"], report["size"]) == (rank, 2)
        assert [interval["mark"] for interval in report["intervals"]] == [None, 1, 2, -1]
        _, first, second, rest = [without_heartbeats(interval["calls"]) for interval in report["intervals"]]
        assert first == {"MPI_Allreduce": {"calls": 1, "bytes": 500 * 8}}
        assert second == {"MPI_Allreduce": {"calls": 1, "bytes": 1000 * 8}}
        assert rest == {"MPI_Bcast": {"calls": 1, "bytes": 10}, "MPI_Ibarrier": {"calls": 1, "bytes": 0}}
        assert all(report["total"][name]["calls"] < 50 for name in HEARTBEAT_CALLS)
        assert report["total"]["MPI_Allreduce"] == {"calls": 2, "bytes": 1500 * 8}


def test_every_call_of_the_runtime_that_carries_data_is_counted():
    counted = set(re.findall(r"COUNTED\((\w+)", (SOURCE / "tests/support/pmpi_counter.c").read_text()))
    carries_nothing = {
        "Abort", "Comm_dup", "Comm_free", "Comm_rank", "Comm_set_errhandler", "Comm_size", "Comm_split_type",
        "Error_string", "Finalize", "Finalized", "Get_library_version", "Init_thread", "Initialized", "Pcontrol", "Test",
        "Waitall",
    }
    called = set()
    for folder in ("runtime", "launch"):
        for source in (SOURCE / folder).rglob("*.cpp"):
            called |= set(re.findall(r"\bMPI_([A-Z][a-z]\w*)\(", source.read_text()))
    assert "Allreduce" in called
    assert called - carries_nothing <= counted
