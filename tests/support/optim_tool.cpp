// SPDX-License-Identifier: Apache-2.0
// Gives tests in Python the optimizer and the schedules: one JSON request a line on standard input, one JSON answer
// a line on standard output. See tests/support/optim_tool.py.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/optim/metric_schedule.h"
#include "runtime/optim/optimizer.h"
#include "runtime/optim/schedule.h"

namespace {

using nlohmann::json;
namespace optim = neoloom::optim;

at::Tensor tensor_of(const json& values) {
  auto floats = values.get<std::vector<float>>();
  return at::from_blob(floats.data(), {static_cast<int64_t>(floats.size())}, at::kFloat).clone();
}

json list_of(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

optim::ScheduleSettings settings_of(const json& request) {
  optim::ScheduleSettings settings{.name = request.at("name"), .learning_rate = request.value("learning_rate", 1.0)};
  const json arguments = request.value("arguments", json::object());
  for (const auto& [name, value] : arguments.items()) {
    if (value.is_number()) settings.arguments[name] = value.get<double>();
    if (value.is_boolean()) settings.arguments[name] = value.get<bool>() ? 1.0 : 0.0;
    if (value.is_string()) settings.arguments[name] = value.get<std::string>();
  }
  return settings;
}

// Returns the learning rate after each value. Before value `resume_at` the schedule goes through its stored state.
json metric_schedule(const json& request) {
  const optim::ScheduleSettings settings = settings_of(request);
  const bool greater_is_better = request.at("greater_is_better");
  auto rate = optim::make_metric_schedule(settings, greater_is_better);
  json rates = json::array();
  for (const json& value : request.at("values")) {
    if (rates.size() == request.at("resume_at").get<size_t>()) {
      const std::string stored = rate->state().dump();
      rate = optim::make_metric_schedule(settings, greater_is_better);
      rate->restore(json::parse(stored));
    }
    rate->step(value.is_null() ? std::nan("") : value.get<double>());
    rates.push_back(rate->learning_rate());
  }
  return {{"rates", rates}};
}

json schedule(const json& request) {
  const int64_t total = request.at("total");
  const int64_t warmup = optim::resolve_warmup_steps(request.at("warmup"), total);
  json factors = json::array();
  optim::ScheduleSettings settings = settings_of(request);
  settings.warmup_steps = warmup;
  settings.total_steps = total;
  const optim::Schedule factor = optim::make_schedule(settings);
  for (int64_t t = 0; t < total; ++t) factors.push_back(factor(t));
  return {{"warmup", warmup}, {"factors", factors}};
}

json adamw(const json& request) {
  at::set_num_threads(request.value("threads", 1));
  at::Tensor params = tensor_of(request.at("params"));
  at::Tensor exp_avg = at::zeros_like(params);
  at::Tensor exp_avg_sq = at::zeros_like(params);
  std::vector<optim::ParameterRange> ranges;
  for (const json& range : request.at("ranges")) ranges.push_back({range.at(0), range.at(1), range.at(2)});
  const optim::AdamWOptions options{request.at("beta1"), request.at("beta2"), request.at("epsilon"),
                                    request.at("weight_decay")};
  json answer = {{"params", json::array()}, {"norms", json::array()}};
  for (size_t i = 0; i < request.at("grads").size(); ++i) {
    at::Tensor grads = tensor_of(request.at("grads")[i]);
    answer["norms"].push_back(optim::clip_grad_norm(grads, request.at("max_norm")));
    optim::adamw_step(params, grads, exp_avg, exp_avg_sq, ranges, options, request.at("learning_rates")[i],
                      static_cast<int64_t>(i) + 1);
    answer["params"].push_back(list_of(params));
  }
  answer["exp_avg"] = list_of(exp_avg);
  answer["exp_avg_sq"] = list_of(exp_avg_sq);
  return answer;
}

// As adamw(), for any optimizer. ranges: [begin, end, decay, rate, columns].
json optimizer(const json& request) {
  at::set_num_threads(request.value("threads", 1));
  optim::OptimizerOptions options = optim::make_optimizer_options(request.at("name"), request.value("arguments", ""));
  options.adamw = {request.at("beta1"), request.at("beta2"), request.at("epsilon"), request.at("weight_decay")};
  std::vector<optim::ParameterRange> ranges;
  int64_t factored = 0;
  for (const json& range : request.at("ranges")) {
    ranges.push_back({range.at(0), range.at(1), range.at(2), range.at(3), range.at(4)});
    const int64_t elements = ranges.back().end - ranges.back().begin, columns = ranges.back().columns;
    factored += columns > 0 ? elements / columns + columns : elements;
  }
  const at::Tensor params = tensor_of(request.at("params"));
  optim::FlatBuffers buffers = optim::make_buffers(options, params.numel(), factored, at::kCPU);
  buffers.params.copy_(params);
  const optim::Optimizer optimizer(options, at::kCPU);
  json answer = {{"params", json::array()}};
  for (size_t i = 0; i < request.at("grads").size(); ++i) {
    buffers.grads.copy_(tensor_of(request.at("grads")[i]));
    const double rate = request.at("learning_rates")[i];
    const auto update = static_cast<int64_t>(i) + 1;
    if (request.value("on_device", false)) {
      optimizer.step_on_device(buffers, ranges,
                               {at::full({}, rate, at::kFloat), at::full({}, static_cast<double>(update), at::kFloat),
                                at::full({}, 0.0, at::kFloat)});
    } else {
      optimizer.step(buffers, ranges, rate, update);
    }
    answer["params"].push_back(list_of(buffers.params));
  }
  answer["exp_avg"] = list_of(buffers.exp_avg);
  answer["exp_avg_sq"] = list_of(buffers.exp_avg_sq);
  return answer;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      const json request = json::parse(line);
      const std::string what = request.at("what");
      if (what == "schedule") answer = schedule(request);
      if (what == "metric_schedule") answer = metric_schedule(request);
      if (what == "adamw") answer = adamw(request);
      if (what == "optimizer") answer = optimizer(request);
      if (answer.is_null()) answer = {{"error", "unknown request " + what}};
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}
