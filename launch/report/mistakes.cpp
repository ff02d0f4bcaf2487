// SPDX-License-Identifier: Apache-2.0
#include "launch/report/mistakes.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "launch/report/html.h"
#include "runtime/metrics/events.h"

namespace neoloom::launch {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMost = 20;

struct Mistake {
  double score = 0.0;
  std::vector<std::string> cells;
};

std::string text_of(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// Returns the columns that predict kept beside the prediction, except the true label.
std::string kept(const ordered_json& row) {
  constexpr size_t kLongestBytes = 2000;
  std::string text;
  for (const auto& [key, value] : row.items()) {
    if (key == "index" || key == "label" || key == "score" || key == "scores" || key == "truth") continue;
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", key, text_of(value));
  }
  return text.size() <= kLongestBytes ? text : text.substr(0, kLongestBytes) + "...";
}

/// Reads the predictions, and keeps the worst mistakes.
class Reader {
 public:
  void take(const ordered_json& row) {
    if (!row.contains("truth") || !row.contains("label") || !row.contains("scores") || !row["scores"].is_object())
      return;
    const std::string truth = text_of(row["truth"]);
    if (!row["scores"].contains(truth)) return;
    ++rows;
    const std::string label = text_of(row["label"]);
    if (label == truth) return;
    ++wrong;
    const double score = number_of(row, "score");
    if (mistakes.size() == kMost && !(score > mistakes.back().score)) return;
    if (mistakes.size() == kMost) mistakes.pop_back();
    const auto place =
        std::find_if(mistakes.begin(), mistakes.end(), [&](const Mistake& m) { return m.score < score; });
    mistakes.insert(place, {score,
                            {exact(number_of(row, "index")), truth, label, rounded(score),
                             rounded(number_of(row["scores"], truth.c_str())), kept(row)}});
  }

  int64_t rows = 0;  // with a true label that is one of the labels
  int64_t wrong = 0;
  std::vector<Mistake> mistakes;  // by falling score
};

}  // namespace

std::string mistakes_section(const RunRecord& run) {
  const std::string of_evaluation = run.folder + "/mistakes.jsonl";
  const std::string of_predict = run.folder + "/predictions.jsonl";
  const bool predicted = std::filesystem::is_regular_file(of_predict);
  if (!predicted && !std::filesystem::is_regular_file(of_evaluation)) {
    return missing("There is no mistakes.jsonl in the run folder, which neoloom 0.4 and later write.");
  }
  Reader reader;
  metrics::read_events(predicted ? of_predict : of_evaluation, [&](const ordered_json& row) { reader.take(row); });
  if (predicted && reader.rows == 0) {
    return missing(fmt::format(
        "No row of predictions.jsonl has its true label, one of the labels, under the key truth: neoloom predict --run "
        "{} --input FILE --output {} --keep truth=LABEL_COLUMN,text=TEXT_COLUMN, then neoloom report",
        run.folder, of_predict));
  }
  if (reader.mistakes.empty()) return "<p>There is none.</p>\n";
  const std::string caption =
      predicted ? fmt::format("{} of {} rows of predictions.jsonl are labelled wrongly; those with the largest scores",
                              reader.wrong, reader.rows)
                : "Mistakes of the last evaluation with the largest scores; rows count from 0";
  Table table(caption, {"row", "true label", "predicted", "score", "score of the true label", "columns"},
              /*text=*/true);
  for (const Mistake& mistake : reader.mistakes) table.row(mistake.cells);
  return table.html();
}

}  // namespace neoloom::launch
