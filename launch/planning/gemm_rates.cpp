// SPDX-License-Identifier: Apache-2.0
#include "launch/planning/gemm_rates.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/system/cpu_info.h"
#include "launch/version.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"

namespace neoloom::launch {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(GemmRate, gflops, date)

namespace {

using core::ErrorKind;
using RatesByShape = std::map<std::string, GemmRate>;

constexpr int kFormat = 1;
constexpr size_t kMaxBytes = size_t{1} << 20;

std::string machine_and_dtypes(const model::MemorySetup& setup) {
  return fmt::format("{} | {} | {} threads | {} | {} from {}{}", cpu_model(), instruction_sets(), setup.threads,
                     version_text(), model::dtype_name(setup.model.compute_dtype),
                     model::dtype_name(setup.frozen_dtype), setup.packed_weights ? ", packed" : "");
}

std::string shape_of(const model::StepGemm& gemm) {
  return fmt::format("{} rows, {} in, {} out, {}", measured_rows(gemm.rows), gemm.in, gemm.out,
                     gemm.backward ? "backward" : "forward");
}

std::map<std::string, RatesByShape> read(const core::Cache& cache, const std::string& path) {
  cache.require_own(path);
  const auto document = core::parse_json(core::read_file(path, ErrorKind::kUsage, kMaxBytes), path, ErrorKind::kUsage);
  try {
    core::require(document.at("format") == kFormat, ErrorKind::kUsage, "{} is not of format {}", path, kFormat);
    auto rates = document.at("rates").get<std::map<std::string, RatesByShape>>();
    for (const auto& [machine, shapes] : rates) {
      for (const auto& [shape, rate] : shapes)
        core::require(rate.gflops > 0.0, ErrorKind::kUsage, "{}: {} has no rate", path, shape);
    }
    return rates;
  } catch (const nlohmann::json::exception& error) {
    core::fail(ErrorKind::kUsage, "{}: {}", path, core::json_complaint(error));
  }
}

}  // namespace

int64_t measured_rows(int64_t rows) { return int64_t{1} << std::lround(std::log2(static_cast<double>(rows))); }

GemmRates::GemmRates(core::Cache cache) : cache_(std::move(cache)), path_(cache_.directory + "/gemm-rates.json") {
  std::error_code unknown;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path_, unknown))) return;
  try {
    rates_ = read(cache_, path_);
  } catch (const core::Error& error) {
    damage_ = error.what();
    if (cache_.say) cache_.say("GEMM rates are ignored: " + damage_);
  }
}

std::optional<GemmRate> GemmRates::find(const model::MemorySetup& setup, const model::StepGemm& gemm) const {
  const auto shapes = rates_.find(machine_and_dtypes(setup));
  if (shapes == rates_.end()) return std::nullopt;
  const auto rate = shapes->second.find(shape_of(gemm));
  return rate == shapes->second.end() ? std::nullopt : std::optional(rate->second);
}

void GemmRates::set(const model::MemorySetup& setup, const model::StepGemm& gemm, GemmRate rate) {
  rates_[machine_and_dtypes(setup)][shape_of(gemm)] = std::move(rate);
}

void GemmRates::save() const {
  if (!damage_.empty()) cache_.begin_rebuild(path_, damage_);
  const nlohmann::json document = {{"format", kFormat}, {"rates", rates_}};
  core::publish_file(path_, document.dump(1) + "\n", ErrorKind::kUsage);
}

}  // namespace neoloom::launch
