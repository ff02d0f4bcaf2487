#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs mpirun with the settings that neoloom needs, and lets the ranks save on a stop:
#
#   cluster/local/mpirun.sh -np 2 build/neoloom train --config run.yaml
#
# On TERM, INT (Ctrl-C), HUP, USR1 or USR2 it sends USR2 to the ranks. They agree at the next step, save a checkpoint,
# and end with exit code 75 (resume me). mpirun alone would kill its ranks one second after a TERM. A second Ctrl-C
# within 3 seconds ends them without saving.
# The exit code is that of the ranks, 128 + N if signal N killed one, or 6 (a peer or the network failed) if mpirun lost
# a host.
# Every setting is an environment variable. Values that you set, or give on mpirun's command line, take precedence.
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

# mpirun hands a pipe to the ranks, so they cannot see that their messages end on a terminal, nor how wide it is.
forwarded=()
new_line=
if [ -t 2 ] && [ "${TERM-}" != dumb ]; then
  new_line=$'\n' # the cursor may stand behind a progress bar
  columns=$(stty size <&2) && columns=${columns#* }
  default "$((columns > 0 ? columns : 80))" NEOLOOM_TERMINAL_COLUMNS
  # Rank 0 may run on another host. mpirun refuses -x beside mca_base_env_list.
  case "${OMPI_MCA_mca_base_env_list+ mca_base_env_list} $*" in
    *" mca_base_env_list "*) ;;
    *) forwarded=(-x NEOLOOM_TERMINAL_COLUMNS ${NO_COLOR:+-x NO_COLOR}) ;;
  esac
fi

child=
signalled=
asked=
last_interrupt=-10

stop() {
  signalled=1
  asked=1
  if [ -n "$child" ]; then kill -USR2 "$child" 2>/dev/null; fi
}

interrupt() {
  if [ $((SECONDS - last_interrupt)) -lt 3 ]; then
    echo "${new_line}mpirun.sh: second interrupt, ending the ranks without saving" >&2
    signalled=1
    kill -TERM "$child" 2>/dev/null
  else
    last_interrupt=$SECONDS
    echo "${new_line}mpirun.sh: asking the ranks to save and stop (again within 3 seconds: end without saving)" >&2
    stop
  fi
}

trap stop TERM USR1 USR2 HUP
trap interrupt INT

# On a terminal mpirun gets a session of its own, so that Ctrl-C reaches this script alone. Elsewhere it stays in our
# process group, where batch systems look for what they must end.
apart=()
if [ -t 0 ] || [ -t 1 ] || [ -t 2 ]; then apart=(setsid); fi
if [ -n "$asked" ]; then exit 75; fi

# Open MPI 5 says that it lost a host, and then ends with code 0. So what it says passes through a listener, which writes
# "lost" to descriptor $verdict, or nothing until it ends. `words` is where mpirun's messages go.
words=2
verdict=
listen() {
  trap '' INT TERM HUP USR1 USR2
  exec 3>&1
  tee -p >(if grep -aq 'has lost communication with a remote daemon'; then echo lost >&3; fi) >&2 3>&-
}
case $(mpirun --version 2>/dev/null) in
  *"(Open MPI) 5"*)
    coproc LISTENER { listen; }
    # Background commands have no access to a coprocess, except through copies of its descriptors.
    exec {words}>&"${LISTENER[1]}" {verdict}<&"${LISTENER[0]}"
    eval "exec ${LISTENER[1]}>&- ${LISTENER[0]}<&-"
    ;;
esac

"${apart[@]}" mpirun "${forwarded[@]}" "$@" </dev/null 2>&"$words" &
child=$!
if [ "$words" != 2 ]; then exec {words}>&-; fi
if [ -n "$asked" ]; then stop; fi

# A trapped signal ends `wait` at once while mpirun still runs; bash still knows the real status afterwards.
wait "$child"
code=$?
while [ -n "$signalled" ]; do
  signalled=
  wait "$child"
  code=$?
done

# The listener ends when it has passed on mpirun's last words; something that mpirun left behind may hold them open.
answer=
if [ -n "$verdict" ]; then read -r -t 5 -u "$verdict" answer; fi
if [ "$code" = 0 ] && [ "$answer" = lost ]; then code=255; fi

case $code in
  138 | 140) # USR1 or USR2 came before the ranks listened: there was nothing to save
    if [ -n "$asked" ]; then
      echo "mpirun.sh: stopped before training began; run the same command again" >&2
      code=75
    fi
    ;;
  205 | 255) # Open MPI 4's code for a lost connection, and both versions' for an ssh that ended early
    echo "mpirun.sh: a host is gone or was never reached (mpirun's code $code); the same command resumes" >&2
    code=6
    ;;
esac
exit "$code"
