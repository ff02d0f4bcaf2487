// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/recorded_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <optional>

namespace neoloom::cuda {
namespace {

struct RecordedGraph {
  at::cuda::CUDAGraph graph{/*keep_graph=*/true};  // for count_nodes
  std::optional<c10::cuda::CUDAStreamGuard> side;  // LibTorch cannot capture on the default stream
};

RecordedGraph& of(GraphHandle graph) { return *static_cast<RecordedGraph*>(graph); }

}  // namespace

void add_graph_calls(DeviceApi& api) {
  // All graphs share one memory pool: they are replayed one after the other, and what outlives a micro-step lies
  // outside of the pool. They share one stream, too: LibTorch returns memory of a pool to the stream that allocated it.
  struct Shared {
    at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
    c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
  };
  const auto kept = std::make_shared<std::optional<Shared>>();
  api.begin_capture = [kept]() -> GraphHandle {
    if (!kept->has_value()) kept->emplace();
    auto recorded = std::make_unique<RecordedGraph>();
    c10::cuda::device_synchronize();
    recorded->side.emplace((*kept)->stream);
    recorded->graph.capture_begin((*kept)->pool, cudaStreamCaptureModeThreadLocal);
    return recorded.release();
  };
  api.end_capture = [](GraphHandle graph) {
    RecordedGraph& recorded = of(graph);
    try {
      recorded.graph.capture_end();
      recorded.graph.instantiate();
    } catch (...) {
      recorded.side.reset();
      throw;
    }
    recorded.side.reset();
  };
  api.replay_graph = [](GraphHandle graph) { of(graph).graph.replay(); };
  api.count_nodes = [](GraphHandle graph) {
    size_t nodes = 0;
    C10_CUDA_CHECK(cudaGraphGetNodes(of(graph).graph.raw_cuda_graph(), nullptr, &nodes));
    return nodes;
  };
  api.destroy_graph = [](GraphHandle graph) { delete static_cast<RecordedGraph*>(graph); };
}

}  // namespace neoloom::cuda
