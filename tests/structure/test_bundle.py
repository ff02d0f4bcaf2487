# SPDX-License-Identifier: Apache-2.0
"""cluster/bootstrap/bundle.sh, with the program that was built here: complete, and at home in any folder."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(os.environ["NEOLOOM_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "tests/support"))

from hosts import Hosts, why_not  # noqa: E402

BUILD = pathlib.Path(os.environ["NEOLOOM_BUILD_DIR"])
BUNDLE = ROOT / "cluster/bootstrap/bundle.sh"
CONTAINERS = ROOT / "cluster/container"
LOADER = "ld-linux-x86-64.so.2"


def make(*arguments):
    return subprocess.run(["bash", BUNDLE, *arguments], capture_output=True, text=True)


def read(path):
    return subprocess.run(["readelf", "-dW", path], capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    for tool in ("readelf", "strip", "ldd", "dpkg-query", "mpirun", "orted", "ompi_info"):
        if shutil.which(tool) is None:
            pytest.skip(f"bundle.sh needs {tool}, which this machine has not")
    made = tmp_path_factory.mktemp("made") / "neoloom"
    done = make("--build", str(BUILD), str(made))
    assert done.returncode == 0, done.stderr
    folder = tmp_path_factory.mktemp("moved") / "elsewhere"
    made.rename(folder)
    yield folder
    shutil.rmtree(folder)


def start(bundle, *command, **variables):
    """Runs a command of the bundle with almost no environment, as on another machine."""
    variables = {"PATH": "/usr/bin:/bin", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} | variables
    return subprocess.run(command, cwd=bundle, env=variables, capture_output=True, text=True, timeout=100)


def objects(bundle):
    return [path for path in sorted(bundle.rglob("*")) if path.is_file() and not path.is_symlink()
            and path.open("rb").read(4) == b"\x7fELF"]


def test_each_library_that_a_file_names_is_in_the_bundle(bundle):
    files = objects(bundle)
    names = {path.name for path in files}
    assert {"neoloom", "mpirun", "orted", LOADER, "libtorch_cpu.so", "mca_btl_tcp.so"} <= names
    for path in files:
        lacking = set(re.findall(r"\(NEEDED\).*\[(.*)\]", read(path))) - names
        assert not lacking, f"{path.name} needs {lacking}"


def test_the_loader_finds_nothing_outside_of_the_bundle(bundle):
    lib = bundle / "lib/neoloom"
    for program in ("neoloom", "mpirun", "orted", "ompi_info"):
        listing = start(bundle, lib / "run" / program, "--library-path", f"{lib}/glibc:{lib}/libraries", "--list", lib / "programs" / program)
        places = re.findall(r"=> (.*) \(0x", listing.stdout)
        assert len(places) > 3 and all(place.startswith(str(bundle)) for place in places), listing.stdout


def test_no_library_is_where_the_shell_of_another_node_would_load_it(bundle):
    """mpirun puts its prefix's lib into LD_LIBRARY_PATH there, and the shell is not the bundle's."""
    assert list((bundle / "lib").glob("*.so*")) == []
    assert list((bundle / "lib/x86_64-linux-gnu/openmpi/lib").glob("*.so*")) == []


def test_no_driver_of_a_network_is_in_the_bundle(bundle):
    assert [path.name for path in objects(bundle) if re.match(r"lib(ucp|fabric|ibverbs|psm2)\.so", path.name)] == []


def test_each_part_has_its_licence(bundle):
    licences = {path.name for path in (bundle / "share/licences").iterdir()}
    assert {"libc6", "libopenmpi3", "libstdc++6", "openmpi-bin"} <= licences
    assert any(name.startswith("torch-") for name in licences)
    assert all(any(path.iterdir()) for path in (bundle / "share/licences").iterdir())
    assert (bundle / "LICENSE").is_file()


def test_ranks_of_a_moved_bundle_work_together(bundle):
    done = start(bundle, bundle / "bin/mpirun", "--oversubscribe", "-np", "2", bundle / "bin/neoloom", "doctor", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(2 ranks)" in done.stdout
    assert "no GPU plug-in: this neoloom is for CPUs alone" in done.stdout


def test_ranks_of_two_hosts_start_through_the_daemon_of_the_bundle(bundle, tmp_path):
    if why_not():
        pytest.skip(why_not())
    with Hosts(tmp_path) as hosts:
        hosts.run("head", "sysctl", "-qw", "net.ipv4.ip_forward=1")  # in its own network: hosts reach each other
        agent = tmp_path / "noting-agent"
        agent.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/commands\nexec {tmp_path}/agent "$@"\n')
        agent.chmod(0o755)
        network = [word for layer in ("btl", "oob") for word in ("--mca", f"{layer}_tcp_if_include", "10.213.0.0/16")]
        done = start(bundle, *hosts.command("head", bundle / "bin/mpirun", "--host", ",".join(hosts.addresses), *network, "-np", "2",
                                            bundle / "bin/neoloom", "doctor", "--device", "cpu"),
                     **hosts.mpi | {"OMPI_MCA_plm_rsh_agent": str(agent)})
        assert done.returncode == 0, done.stdout + done.stderr
    for name in hosts.names:
        assert f"host {name} (1 rank)" in done.stdout
    assert (tmp_path / "commands").read_text().count(f"{bundle}/bin/orted") == 2


def test_a_link_to_the_program_works(bundle, tmp_path):
    (tmp_path / "nl").symlink_to(bundle / "bin/neoloom")
    assert start(bundle, tmp_path / "nl", "--version").stdout.startswith("neoloom ")


def test_processes_have_the_names_of_their_programs(bundle):
    """neoloom looks for mpirun among its ancestors, and people look for neoloom in top."""
    done = start(bundle, bundle / "bin/mpirun", "-np", "1", "cat", "/proc/self/comm")
    assert done.stdout == "cat\n", done.stderr
    done = start(bundle, bundle / "bin/mpirun", "-np", "1", "sh", "-c", "cat /proc/$PPID/comm")
    assert done.stdout == "mpirun\n", done.stderr


def test_messages_of_mpirun_come_from_the_bundle(bundle):
    done = start(bundle, bundle / "bin/mpirun", "-np", "1", "no-such-program")
    assert done.returncode != 0 and "mpirun was unable to find the specified executable file" in done.stderr


def test_another_open_mpi_takes_the_place_of_the_bundled_one(bundle, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mpirun").write_text('#!/bin/sh\necho "the mpirun of this site: $*"\n')
    (tmp_path / "bin/mpirun").chmod(0o755)
    (tmp_path / "lib").mkdir()
    shutil.copy(bundle / "lib/neoloom/libraries/libmpi.so.40", tmp_path / "lib")
    note = bundle / "openmpi.path"
    note.write_text(f"{tmp_path}\n")
    try:
        assert start(bundle, bundle / "bin/mpirun", "-np", "2").stdout == "the mpirun of this site: -np 2\n"
        loaded = start(bundle, bundle / "bin/neoloom", "--version", LD_DEBUG="libs").stderr
        assert f"calling init: {tmp_path}/lib/libmpi.so.40" in loaded
    finally:
        note.unlink()


@pytest.mark.parametrize("arguments, message", [
    ([], "names no FOLDER or FILE"),
    (["--gpu", "x"], "unknown option --gpu"),
    (["bundle.zip"], "a file that ends in .tar.zst, .tar.xz or .tar.gz"),
    (["--build", "/nowhere", "x"], "there is no /nowhere/neoloom: build it first"),
])
def test_a_wrong_call_is_one_sentence(arguments, message):
    done = make(*arguments)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    done = make("--build", str(BUILD), str(tmp_path))
    assert done.returncode == 2 and "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def recipe(name):
    text = re.sub(r"^\s*#.*\n", "", (CONTAINERS / name).read_text(), flags=re.MULTILINE)
    return text.replace("{{ setup }}", "$setup").replace("\\\n", "")


def test_both_recipes_of_a_container_do_the_same_with_the_packages_of_bootstrap():
    recipes = [recipe(name) for name in ("Containerfile", "neoloom.def")]
    # The build installs what bootstrap.sh does and nothing else; the bundle brings the rest.
    for pattern, wanted in {
        r"bash cluster/bootstrap/(.*?) *(?:\n|&&|;)": ["bootstrap.sh $setup", "bundle.sh /opt/neoloom", "bundle.sh --cuda /opt/cuda"],
        r"no-install-recommends (.*?) *(?:\n|&&)": ["ca-certificates openssh-client"],
        r"docker.io/library/(\S+)": ["debian:bookworm", "debian:bookworm-slim"],
        r"setup=(\S+)": ["--cpu"],
    }.items():
        assert [re.findall(pattern, text) for text in recipes] == [wanted, wanted]
    assert len({re.search("cmake --preset.*", text)[0] for text in recipes}) == 1
    sources = set(re.findall(r"add_subdirectory\((\w+)\)", (ROOT / "CMakeLists.txt").read_text())) - {"tests"}
    for text in recipes:
        copied = set(" ".join(re.findall(r"^(?:COPY|  )([\w. ]+) (?:\S+)$", text, re.MULTILINE)).split())
        assert {*sources, "cluster", "configs", "CMakeLists.txt", "CMakePresets.json", "LICENSE"} <= copied
    assert "| Debian 12 " in (ROOT / "CONTRIBUTING.md").read_text()
