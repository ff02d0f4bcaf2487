// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/mistakes_file.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/core/files.h"

namespace neoloom::train {

MistakesFile::MistakesFile(std::string folder, Decode decode)
    : folder_(std::move(folder)), decode_(std::move(decode)) {}

SideProduct::Outcome MistakesFile::update(const std::string& set, const EvalResult& result,
                                          const data::TokenStore& store) {
  if (!result.single_label) return {};
  const auto name_of = [&](int64_t label) { return store.label_names().at(static_cast<size_t>(label)); };
  std::string& lines = lines_[set];
  lines.clear();
  for (const metrics::Mistake& mistake : result.mistakes) {
    const std::string truth = name_of(mistake.truth);
    nlohmann::ordered_json line = {{"index", mistake.row},
                                   {"label", name_of(mistake.label)},
                                   {"score", mistake.score},
                                   {"scores", {{truth, mistake.truth_score}}},
                                   {"truth", truth}};
    if (!set.empty()) line["set"] = set;
    if (decode_) line["text"] = decode_(store.ids(store.pack_begin(mistake.row)));
    lines += line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    lines += '\n';
  }
  file_.due();
  return file_.write([&] {
    std::string text;
    for (const auto& [name, of_set] : lines_) text += of_set;
    core::publish_file(folder_ + "/" + file_.name(), text, core::ErrorKind::kOutput);
  });
}

}  // namespace neoloom::train
