// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/recorded_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <optional>

namespace neoloom::cuda {
namespace {

struct RecordedGraph {
  at::cuda::CUDAGraph graph;
  std::optional<c10::cuda::CUDAStreamGuard> side;  // LibTorch records on no default stream
};

RecordedGraph& of(GraphHandle graph) { return *static_cast<RecordedGraph*>(graph); }

}  // namespace

void add_graph_calls(DeviceApi& api) {
  // One pool for all graphs: they are played one after the other, and what outlives a graph lies outside of it.
  const auto pool = std::make_shared<std::optional<at::cuda::MempoolId_t>>();
  api.begin_capture = [pool]() -> GraphHandle {
    if (!pool->has_value()) *pool = at::cuda::graph_pool_handle();
    auto recorded = std::make_unique<RecordedGraph>();
    c10::cuda::device_synchronize();
    recorded->side.emplace(c10::cuda::getStreamFromPool());
    recorded->graph.capture_begin(**pool, cudaStreamCaptureModeThreadLocal);
    return recorded.release();
  };
  api.end_capture = [](GraphHandle graph) {
    RecordedGraph& recorded = of(graph);
    try {
      recorded.graph.capture_end();
    } catch (...) {
      recorded.side.reset();
      throw;
    }
    recorded.side.reset();
  };
  api.replay_graph = [](GraphHandle graph) { of(graph).graph.replay(); };
  api.destroy_graph = [](GraphHandle graph) { delete static_cast<RecordedGraph*>(graph); };
}

}  // namespace neoloom::cuda
