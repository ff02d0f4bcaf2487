// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "runtime/metrics/events.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::metrics {
namespace {

constexpr size_t kColumns = 12;
using Row = std::array<std::string, kColumns>;

const Row kHeader = {"rank",    "host",    "device", "batches/s", "samples/s", "tokens/s",
                     "padding", "compute", "comm",   "data",      "peak mem",  "TFLOP/s"};

bool is_text(size_t column) { return column == 1 || column == 2; }

std::string percent(double share) { return fmt::format("{:.1f}%", 100.0 * share); }

Row device_row(const DeviceMeasure& measure) {
  const double seconds = std::max(measure.seconds, 1e-9);
  return {fmt::format("{}", measure.rank),
          measure.host,
          measure.device,
          rate_text(static_cast<double>(measure.batches) / seconds),
          rate_text(static_cast<double>(measure.samples) / seconds),
          rate_text(static_cast<double>(measure.tokens) / seconds),
          percent(padding_share(measure)),
          percent(measure.compute_seconds / seconds),
          percent(measure.comm_seconds / seconds),
          percent(measure.data_seconds / seconds),
          measure.peak_memory_bytes > 0 ? memory_text(measure.peak_memory_bytes) : "-",
          measure.flops > 0.0 ? rate_text(measure.flops / seconds * 1e-12) : "-"};
}

// Adds up the rates, because devices work at the same time, and averages the shares over device time. Leaves memory
// out, because ranks of one host share pages.
Row total_row(const std::vector<DeviceMeasure>& measures) {
  DeviceMeasure sum;
  std::set<std::string> hosts;
  double batches = 0.0, samples = 0.0, tokens = 0.0, flops = 0.0;
  for (const DeviceMeasure& measure : measures) {
    const double seconds = std::max(measure.seconds, 1e-9);
    batches += static_cast<double>(measure.batches) / seconds;
    samples += static_cast<double>(measure.samples) / seconds;
    tokens += static_cast<double>(measure.tokens) / seconds;
    flops += measure.flops / seconds;
    accumulate(measure, sum);
    hosts.insert(measure.host);
  }
  sum.peak_memory_bytes = 0;
  Row row = device_row(sum);
  row[0] = "all";
  row[1] = fmt::format("{} host{}", hosts.size(), hosts.size() == 1 ? "" : "s");
  row[2] = fmt::format("{} devices", measures.size());
  row[3] = rate_text(batches);
  row[4] = rate_text(samples);
  row[5] = rate_text(tokens);
  row[11] = flops > 0.0 ? rate_text(flops * 1e-12) : "-";
  return row;
}

std::string line_of(const Row& row, const std::array<size_t, kColumns>& widths) {
  std::string line;
  for (size_t i = 0; i < kColumns; ++i) {
    // Numbers are right-aligned, so one blank before them is enough: most terminals are narrow.
    if (i > 0) line += is_text(i) || is_text(i - 1) ? "  " : " ";
    line += is_text(i) ? pad_right(row[i], widths[i]) : pad_left(row[i], widths[i]);
  }
  return line + "\n";
}

}  // namespace

std::string device_table(const std::vector<DeviceMeasure>& measures) {
  if (measures.empty()) return "";
  std::vector<Row> rows = {kHeader};
  for (const DeviceMeasure& measure : measures) rows.push_back(device_row(measure));
  if (measures.size() > 1) rows.push_back(total_row(measures));
  std::array<size_t, kColumns> widths{};
  for (size_t i = 0; i < kColumns; ++i) {
    for (const Row& row : rows) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  const std::string rule = std::string(display_width(line_of(kHeader, widths)) - 1, '-') + "\n";
  std::string table = line_of(rows.front(), widths) + rule;
  for (size_t i = 1; i <= measures.size(); ++i) table += line_of(rows[i], widths);
  if (measures.size() > 1) table += rule + line_of(rows.back(), widths);
  return table;
}

}  // namespace neoloom::metrics
