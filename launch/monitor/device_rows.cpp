// SPDX-License-Identifier: Apache-2.0
#include "launch/monitor/device_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launch/report/run_record.h"
#include "runtime/metrics/text_width.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

constexpr size_t kColumns = 9;
using Cells = std::array<std::string, kColumns>;

struct Column {
  const char* title;
  int worth;  // columns of less worth go first when there is no room
  bool text = false;
};
constexpr std::array<Column, kColumns> kTable{{{"rank", 9, true},
                                               {"host", 2, true},
                                               {"device", 8, true},
                                               {"tokens/s", 9},
                                               {"samples/s", 1},
                                               {"memory", 7},
                                               {"compute", 5},
                                               {"comm", 4},
                                               {"data", 3}}};

std::string rate(double value) { return std::isfinite(value) ? metrics::rate_text(value) : "-"; }

std::string share(double value) { return std::isfinite(value) ? fmt::format("{:.0f} %", 100.0 * value) : "-"; }

std::string memory(double bytes) {
  return bytes > 0 && bytes < 1e18 ? metrics::memory_text(static_cast<int64_t>(bytes)) : "-";
}

Cells cells_of(const ordered_json& device) {
  return {fmt::format("{}", count_of(device, "rank")),
          metrics::cut_to_width(text_of(device, "host", "?"), 16),
          text_of(device, "device", "?"),
          rate(number_of(device, "tokens_per_s")),
          rate(number_of(device, "samples_per_s")),
          memory(number_of(device, "peak_memory_bytes")),
          share(number_of(device, "compute_share")),
          share(number_of(device, "comm_share")),
          share(number_of(device, "data_share"))};
}

Cells sums_of(const std::vector<const ordered_json*>& devices) {
  const auto sum = [&](const char* key) {
    double total = 0.0;
    for (const ordered_json* device : devices) total += number_of(*device, key);
    return total;
  };
  const auto mean = [&](const char* key) { return sum(key) / static_cast<double>(devices.size()); };
  double largest = 0.0;
  for (const ordered_json* device : devices) largest = std::max(largest, number_of(*device, "peak_memory_bytes"));
  return {"all",
          fmt::format("{} ranks", devices.size()),
          "",
          rate(sum("tokens_per_s")),
          rate(sum("samples_per_s")),
          memory(largest),
          share(mean("compute_share")),
          share(mean("comm_share")),
          share(mean("data_share"))};
}

// Returns which columns fit, and pads the cells of all rows to the width of their column.
std::vector<size_t> fit(std::vector<Cells>& rows, size_t columns) {
  std::array<size_t, kColumns> widths{};
  std::vector<size_t> shown;
  size_t width = 0;
  for (size_t i = 0; i < kColumns; ++i) {
    for (const Cells& row : rows) widths.at(i) = std::max(widths.at(i), metrics::display_width(row.at(i)));
    for (Cells& row : rows) {
      row.at(i) =
          kTable.at(i).text ? metrics::pad_right(row.at(i), widths.at(i)) : metrics::pad_left(row.at(i), widths.at(i));
    }
    width += widths.at(i) + 2;
    shown.push_back(i);
  }
  while (shown.size() > 1 && width > columns + 2) {
    const auto least = std::min_element(shown.begin(), shown.end(),
                                        [](size_t a, size_t b) { return kTable.at(a).worth < kTable.at(b).worth; });
    width -= widths.at(*least) + 2;
    shown.erase(least);
  }
  return shown;
}

}  // namespace

std::vector<std::string> device_rows(const ordered_json& devices, size_t columns, size_t most_rows) {
  std::vector<const ordered_json*> known;
  if (devices.is_array()) {
    for (const ordered_json& device : devices) {
      if (device.is_object()) known.push_back(&device);
    }
  }
  if (known.empty() || most_rows < 2) return {};
  Cells header;
  for (size_t i = 0; i < kColumns; ++i) header.at(i) = kTable.at(i).title;
  std::vector<Cells> rows = {header};
  const bool several = known.size() > 1;
  const bool all_fit = known.size() + (several ? 2 : 1) <= most_rows;
  const size_t room = most_rows >= 4 ? most_rows - 3 : 0;  // beside the header, "more" and the sums
  const size_t listed = all_fit ? known.size() : room;
  for (size_t i = 0; i < listed; ++i) rows.push_back(cells_of(*known[i]));
  if (several) rows.push_back(sums_of(known));
  const std::vector<size_t> shown = fit(rows, columns);
  std::vector<std::string> lines;
  for (const Cells& row : rows) {
    std::string line;
    for (const size_t i : shown) line += (line.empty() ? "" : "  ") + row.at(i);
    lines.push_back(metrics::cut_to_width(line, columns));
  }
  if (!all_fit && listed > 0) {
    lines.insert(lines.end() - 1, metrics::cut_to_width(fmt::format("... {} more", known.size() - listed), columns));
  }
  return lines;
}

}  // namespace neoloom::launch
