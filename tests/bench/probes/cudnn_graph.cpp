// SPDX-License-Identifier: Apache-2.0
// Compiled with hidden symbols: LibTorch has its own copy of the frontend, of another version.
#include "tests/bench/probes/cudnn_graph.h"

#include <ATen/ops/empty.h>
#include <cudnn_frontend.h>

#include <cstdlib>
#include <unordered_map>
#include <utility>

#include "model/cuda/attention_choice.h"
#include "runtime/core/error.h"
#include "runtime/core/unique_handle.h"

namespace neoloom::probes {

namespace fe = cudnn_frontend;

namespace {

using Node = std::shared_ptr<fe::graph::Tensor_attributes>;

// The frontend's only switch for the ordered sum of dQ: with no byte for dP, a deterministic backward uses it.
constexpr const char* kDpWorkspaceLimit = "CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT";
constexpr float kScale = 1.0F;  // GPT-Neo does not divide by sqrt(d)

enum Uid : int64_t { kQ = 1, kK, kV, kOut, kStats, kLengths, kOffsets, kGrad, kDq, kDk, kDv };

using Handle = core::UniqueHandle<core::PointerTraits<cudnnHandle_t, cudnnDestroy>>;

Handle open_cudnn() {
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = cudnnCreate(&handle);
  core::require(status == CUDNN_STATUS_SUCCESS, core::ErrorKind::kDevice, "cuDNN: cudnnCreate failed: {}",
                cudnnGetErrorString(status));
  return Handle(handle);
}

void check(const fe::error_t& result, const char* step) {
  core::require(result.is_good(), core::ErrorKind::kDevice, "cuDNN graph, {}: {}", step, result.err_msg);
}

}  // namespace

class AttentionGraph::Built {
 public:
  Built(const AttentionCase& layer, Pass pass, RowLayout layout, SumOrder order) : layer_(layer), layout_(layout) {
    ::setenv(kDpWorkspaceLimit, order == SumOrder::kOrderedDq ? "0" : "-1", 1);
    graph_.set_io_data_type(layer.dtype == at::kHalf ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (layout != RowLayout::kEven) lengths_ = index("lengths", kLengths, samples());
    if (layout == RowLayout::kRagged) offsets_ = index("offsets", kOffsets, samples() + 1);
    pass == Pass::kForward ? add_forward() : add_backward(order != SumOrder::kAny);
    build();
  }

  void run(const GraphTensors& x) {
    std::unordered_map<int64_t, void*> pointers;
    const std::pair<int64_t, const at::Tensor*> all[] = {{kQ, &x.q},
                                                         {kK, &x.k},
                                                         {kV, &x.v},
                                                         {kOut, &x.out},
                                                         {kStats, &x.stats},
                                                         {kLengths, &x.lengths},
                                                         {kOffsets, &x.offsets},
                                                         {kGrad, &x.grad},
                                                         {kDq, &x.dq},
                                                         {kDk, &x.dk},
                                                         {kDv, &x.dv}};
    for (const auto& [uid, tensor] : all) {
      if (tensor->defined()) pointers[uid] = tensor->data_ptr();
    }
    if (!workspace_.defined()) workspace_ = at::empty({workspace_bytes_ + 1}, x.q.options().dtype(at::kByte));
    check(graph_.execute(handle_.get(), pointers, workspace_.data_ptr()), "execute");
  }

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  int64_t samples() const { return static_cast<int64_t>(layer_.lengths.size()); }

  /// [count] int32.
  Node index(const char* name, Uid uid, int64_t count) {
    return graph_.tensor(fe::graph::Tensor_attributes()
                             .set_name(name)
                             .set_uid(uid)
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  }

  /// Describes rows as [B, H, T, d]. cuDNN ignores the stride of B where it has offsets.
  void describe_rows(fe::graph::Tensor_attributes& rows) const {
    const int64_t heads = layer_.heads, size = layer_.head_size;
    rows.set_dim({samples(), heads, layer_.length, size})
        .set_stride({layer_.length * heads * size, size, heads * size, 1});
    if (offsets_) rows.set_ragged_offset(offsets_);
  }

  Node rows(const char* name, Uid uid) {
    fe::graph::Tensor_attributes attributes;
    attributes.set_name(name).set_uid(uid);
    describe_rows(attributes);
    return graph_.tensor(attributes);
  }

  void write_rows(const Node& node, Uid uid) const {
    node->set_output(true).set_uid(uid);
    describe_rows(*node);
  }

  void describe_stats(fe::graph::Tensor_attributes& stats) const {
    stats.set_uid(kStats)
        .set_dim({samples(), layer_.heads, layer_.length, 1})
        .set_stride({layer_.heads * layer_.length, layer_.length, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }

  /// Sets what both passes have in common: scale, mask and lengths. The frontend's left bound counts the token itself,
  /// flash attention's does not.
  template <typename Attributes>
  Attributes attributes(const char* name) const {
    const model::SlidingWindow reach = model::sliding_window(layer_.window);
    Attributes common;
    common.set_name(name)
        .set_attn_scale(kScale)
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(static_cast<int>(reach.right.value_or(0)));
    if (reach.left) common.set_diagonal_band_left_bound(static_cast<int>(*reach.left) + 1);
    if (lengths_) common.set_padding_mask(true).set_seq_len_q(lengths_).set_seq_len_kv(lengths_);
    return common;
  }

  void add_forward() {
    auto forward = attributes<fe::graph::SDPA_attributes>("forward").set_generate_stats(true);
    const auto [out, stats] = graph_.sdpa(rows("q", kQ), rows("k", kK), rows("v", kV), forward);
    write_rows(out, kOut);
    stats->set_output(true);
    describe_stats(*stats);
  }

  void add_backward(bool deterministic) {
    auto backward =
        attributes<fe::graph::SDPA_backward_attributes>("backward").set_deterministic_algorithm(deterministic);
    if (offsets_) backward.set_max_total_seq_len_q(layer_.tokens()).set_max_total_seq_len_kv(layer_.tokens());
    fe::graph::Tensor_attributes stats;
    stats.set_name("stats");
    describe_stats(stats);
    const auto [dq, dk, dv] = graph_.sdpa_backward(rows("q", kQ), rows("k", kK), rows("v", kV), rows("out", kOut),
                                                   rows("grad", kGrad), graph_.tensor(stats), backward);
    write_rows(dq, kDq);
    write_rows(dk, kDk);
    write_rows(dv, kDv);
  }

  void build() {
    check(graph_.validate(), "validate");
    check(graph_.build_operation_graph(handle_.get()), "build_operation_graph");
    check(graph_.create_execution_plans({fe::HeurMode_t::A}), "create_execution_plans");
    check(graph_.check_support(), "check_support");
    check(graph_.build_plans(), "build_plans");
    check(graph_.get_workspace_size(workspace_bytes_), "get_workspace_size");
  }

  AttentionCase layer_;
  RowLayout layout_;
  Handle handle_ = open_cudnn();
  fe::graph::Graph graph_;
  Node lengths_, offsets_;
  int64_t workspace_bytes_ = 0;
  at::Tensor workspace_;
};

AttentionGraph::AttentionGraph(const AttentionCase& layer, Pass pass, RowLayout layout, SumOrder order)
    : built_(std::make_unique<Built>(layer, pass, layout, order)) {}

AttentionGraph::~AttentionGraph() = default;

void AttentionGraph::run(const GraphTensors& tensors) { built_->run(tensors); }

int64_t AttentionGraph::workspace_bytes() const { return built_->workspace_bytes(); }

}  // namespace neoloom::probes
