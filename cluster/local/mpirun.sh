#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# mpirun with the settings that neoloom wants, and with a stop that saves:
#
#   cluster/local/mpirun.sh -np 2 build/neoloom train --config run.yaml
#
# TERM, INT (Ctrl-C), HUP, USR1 and USR2 become USR2 for the ranks: they agree at the next step, save a checkpoint and
# end with exit code 75 (resume me). mpirun itself would kill its ranks one second after a TERM. A second Ctrl-C within
# 3 seconds ends them without saving.
# Every setting is an environment variable, so that a value from outside, or one on mpirun's command line, wins.
# Names with OMPI_ are for Open MPI 4, those with PRTE_ for Open MPI 5.
# shellcheck disable=SC2317  # functions are called by traps
set -u

default() { # VALUE NAME...
  local value=$1 name
  shift
  for name in "$@"; do
    if [ -z "${!name+set}" ]; then export "$name=$value"; fi
  done
}

if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# A cut link is noticed after about 10 seconds instead of 8 minutes.
default 5 OMPI_MCA_oob_tcp_keepalive_time PRTE_MCA_oob_tcp_keepalive_time
default 2 OMPI_MCA_oob_tcp_keepalive_intvl PRTE_MCA_oob_tcp_keepalive_intvl
default 3 OMPI_MCA_oob_tcp_keepalive_probes PRTE_MCA_oob_tcp_keepalive_probes
# neoloom places ranks and threads itself; the default binding would leave each rank one core.
default none OMPI_MCA_hwloc_base_binding_policy PRTE_MCA_hwloc_default_binding_policy
# With more ranks than cores, ranks that wait give way instead of spinning.
default 1 OMPI_MCA_rmaps_base_oversubscribe OMPI_MCA_mpi_yield_when_idle
default :oversubscribe PRTE_MCA_rmaps_default_mapping_policy

child=
signalled=
last_interrupt=-10

stop() {
  signalled=1
  if [ -n "$child" ]; then kill -USR2 "$child" 2>/dev/null; fi
}

interrupt() {
  if [ $((SECONDS - last_interrupt)) -lt 3 ]; then
    echo "mpirun.sh: second interrupt, ending the ranks without saving" >&2
    signalled=1
    kill -TERM "$child" 2>/dev/null
  else
    last_interrupt=$SECONDS
    echo "mpirun.sh: asking the ranks to save and stop (again within 3 seconds: end without saving)" >&2
    stop
  fi
}

trap stop TERM USR1 USR2 HUP
trap interrupt INT

# On a terminal mpirun gets a session of its own, so that Ctrl-C reaches this script alone. Elsewhere it stays in our
# process group, where batch systems look for what they must end.
apart=()
if [ -t 0 ] || [ -t 1 ] || [ -t 2 ]; then apart=(setsid); fi
"${apart[@]}" mpirun "$@" </dev/null &
child=$!
if [ -n "$signalled" ]; then stop; fi

# A trapped signal ends `wait` at once while mpirun still runs; bash still knows the real status afterwards.
wait "$child"
code=$?
while [ -n "$signalled" ]; do
  signalled=
  wait "$child"
  code=$?
done
exit "$code"
