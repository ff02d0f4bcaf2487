// SPDX-License-Identifier: Apache-2.0
#include <nccl.h>

#include <cstring>

#include "runtime/cuda/api.h"

namespace neoloom::cuda {
namespace {

static_assert(ncclSuccess == kNcclSuccess && ncclInProgress == kNcclInProgress);
static_assert(sizeof(ncclUniqueId) == sizeof(NcclUniqueId));

ncclComm_t native(NcclHandle comm) { return static_cast<ncclComm_t>(comm); }

int init_rank(NcclHandle* comm, int size, const NcclUniqueId& id, int rank) {
  ncclUniqueId native_id;
  std::memcpy(&native_id, id.data(), sizeof native_id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t created = nullptr;
  const ncclResult_t result = ncclCommInitRankConfig(&created, size, native_id, rank, &config);
  *comm = created;
  return result;
}

int all_reduce_sum(void* data, size_t n_elements, comm::Element element, NcclHandle comm, StreamHandle stream) {
  const ncclDataType_t type = element == comm::Element::kInt64 ? ncclInt64 : ncclFloat32;
  return ncclAllReduce(data, data, n_elements, type, ncclSum, native(comm), static_cast<cudaStream_t>(stream));
}

int async_error(NcclHandle comm, int* state) {
  ncclResult_t native_state = ncclSuccess;
  const ncclResult_t result = ncclCommGetAsyncError(native(comm), &native_state);
  *state = native_state;
  return result;
}

}  // namespace

NcclApi nccl_api() {
  NcclApi api;
  api.version = [](int* version) { return static_cast<int>(ncclGetVersion(version)); };
  api.unique_id = [](NcclUniqueId* id) {
    ncclUniqueId native_id;
    const ncclResult_t result = ncclGetUniqueId(&native_id);
    std::memcpy(id->data(), &native_id, sizeof native_id);
    return static_cast<int>(result);
  };
  api.init_rank = init_rank;
  api.all_reduce_sum = all_reduce_sum;
  api.async_error = async_error;
  api.finalize = [](NcclHandle comm) { return static_cast<int>(ncclCommFinalize(native(comm))); };
  api.destroy = [](NcclHandle comm) { return static_cast<int>(ncclCommDestroy(native(comm))); };
  api.abort = [](NcclHandle comm) { return static_cast<int>(ncclCommAbort(native(comm))); };
  api.error_text = [](int result) { return std::string(ncclGetErrorString(static_cast<ncclResult_t>(result))); };
  api.last_error = [](NcclHandle comm) { return std::string(ncclGetLastError(native(comm))); };
  return api;
}

}  // namespace neoloom::cuda
