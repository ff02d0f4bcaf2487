// SPDX-License-Identifier: Apache-2.0
#include "data/line_samples.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "data/readers/line_reader.h"
#include "data/store/labels.h"
#include "data/store/sample_maker.h"
#include "runtime/core/text.h"

namespace neoloom::data {

class LineSamples::Source {
 public:
  Source(const std::string& name, StoreRequest request, const Tokenizer& tokenizer,
         const std::vector<std::string>& kept, const std::string& option)
      : request_(std::move(request)), maker_(request_, tokenizer), labels_({name, std::nullopt, std::nullopt}) {
    std::vector<Column> columns = maker_.columns();
    for (const std::string& column : kept) {
      const auto named = [&](const Column& each) { return each.name == column; };
      auto found = std::find_if(columns.begin(), columns.end(), named);
      if (found == columns.end()) found = columns.insert(found, {column, option});
      kept_.push_back(static_cast<size_t>(found - columns.begin()));
    }
    lines_.emplace(name, request_.options, std::move(columns), /*as_json=*/!kept_.empty());
  }

  bool read(std::string_view line, LineSample& sample) {
    if (!lines_->read(line, row_)) return false;
    sample = LineSample{row_.line, maker_.make(row_, labels_, made_), {}, false, {}};
    sample.truncated = sample.error.empty() && made_.truncated;
    if (sample.error.empty() && made_.ids.empty()) sample.error = "the text is empty";
    sample.error = core::printable(sample.error, kLongestReasonBytes);
    if (sample.error.empty() && maker_.makes_windows()) {
      sample.windows = maker_.windows(made_.ids);
    } else {
      sample.windows = {std::move(made_.ids)};
    }
    for (const size_t column : kept_) {
      const bool known = row_.error.empty() && !row_.cells[column].json.empty();
      sample.kept.push_back(known ? row_.cells[column].json : "null");
    }
    return true;
  }

 private:
  static constexpr size_t kLongestReasonBytes = 400;

  StoreRequest request_;
  SampleMaker maker_;
  Labels labels_;
  std::optional<LineReader> lines_;
  std::vector<size_t> kept_;  // positions among the columns read
  Row row_;
  Sample made_;
};

LineSamples::LineSamples(const std::string& name, StoreRequest request, const Tokenizer& tokenizer,
                         const std::vector<std::string>& kept, const std::string& option)
    : source_(std::make_unique<Source>(name, std::move(request), tokenizer, kept, option)) {}

LineSamples::LineSamples(LineSamples&& other) noexcept = default;

LineSamples::~LineSamples() = default;

bool LineSamples::read(std::string_view line, LineSample& sample) { return source_->read(line, sample); }

}  // namespace neoloom::data
