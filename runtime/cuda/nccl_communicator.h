// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "runtime/comm/communicator.h"
#include "runtime/cuda/api.h"

namespace neoloom::cuda {

struct NcclSetup {
  int rank = 0;
  int size = 1;
  /// Carries rank 0's bytes to all ranks (MPI).
  std::function<void(void* bytes, size_t count_bytes)> broadcast;
  double init_deadline_seconds = 300.0;  // NCCL itself has none
  double call_deadline_seconds = 100.0;  // for a call that returns ncclInProgress, and for finalize
  double abort_deadline_seconds = 5.0;   // ncclCommAbort may itself hang
};

/// Joins the NCCL communicator of all ranks on the selected device.
/// Stream: sums run on a stream of their own. Events order it after the current stream, and the current stream after
/// it.
/// Collective: every rank. Throws: Error(kPeer) with the call and NCCL's text, Error(kDevice) for CUDA's.
std::unique_ptr<comm::Communicator> make_nccl_communicator(const NcclSetup& setup, NcclApi nccl, DeviceApi device);

/// 22809 -> "2.28.9".
std::string nccl_version_text(int version);

}  // namespace neoloom::cuda
