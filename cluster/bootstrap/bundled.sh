#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the program of this name with the loader and the libraries of the bundle that this script is in. The bundle may
# be moved. With a file openmpi.path in the bundle, which names the folder of another Open MPI, it uses that one.
name=${0##*/}
home=$(readlink -f "$0")
home=${home%/bin/*}
lib=$home/lib/neoloom
[ -e "$lib/run/$name" ] || name=neoloom
libraries=$lib/libraries:$lib/cuda
loader=$lib/run/$name

# newer_than_ours: whether the system's C library is newer, which what else the system has may need.
newer_than_ours() {
  for one in "$loader" /lib64/ld-linux-x86-64.so.2; do
    "$one" --version 2>/dev/null | sed -n '1s/.* 2\.\([0-9]*\)\.$/\1/p'
  done | { read -r ours && read -r systems && [ "$systems" -gt "$ours" ]; }
}

if [ -f "$home/openmpi.path" ]; then
  read -r site <"$home/openmpi.path"
  case $name in
    mpirun | orted | ompi_info) exec "$site/bin/$name" "$@" ;;
  esac
  for folder in lib lib64 lib/x86_64-linux-gnu; do
    [ ! -e "$site/$folder/libmpi.so.40" ] || libraries=$site/$folder:$libraries
  done
  if newer_than_ours; then
    exec /lib64/ld-linux-x86-64.so.2 --library-path "$libraries" "$lib/programs/$name" "$@"
  fi
else
  # Open MPI and its libraries find their files here, not where Debian has them.
  export OPAL_PREFIX="$home" OPAL_SYSCONFDIR="$home/etc/openmpi"
  pmix=$home/lib/x86_64-linux-gnu/pmix2
  export PMIX_PREFIX="$pmix" PMIX_PKGLIBDIR="$pmix/lib/pmix" PMIX_PKGDATADIR="$pmix/share/pmix" HWLOC_PLUGINS_PATH="$lib/none"
fi
if [ -z "${SSL_CERT_FILE-}${REQUESTS_CA_BUNDLE-}${CURL_CA_BUNDLE-}" ]; then # the places of Debian, Red Hat and SUSE; libcurl looks in the first alone
  for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
    if [ -e "$file" ]; then export SSL_CERT_FILE="$file" && break; fi
  done
fi
if [ "$name" = mpirun ] && ! command -v ssh >/dev/null && ! command -v rsh >/dev/null && [ -z "${OMPI_MCA_plm_rsh_agent-}" ]; then
  export OMPI_MCA_plm="${OMPI_MCA_plm-^rsh}" # without either, mpirun would start no rank on this machine
fi
exec "$loader" --argv0 "$home/bin/$name" --library-path "$lib/glibc:$libraries" "$lib/programs/$name" "$@"
