// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <stdexcept>

#include "data/tokenizer/tokenizer.h"
#include "runtime/core/files.h"
#include "tests/bench/micro/micro.h"

namespace neoloom::bench {

void register_tokenizer(const std::string& folder, const std::string& text_file) {
  const auto text = std::make_shared<const std::string>(core::read_file(text_file));
  const auto tokenizer = std::make_shared<const data::Tokenizer>(data::Tokenizer::from_folder(folder));
  add_case({"tokenizer/encode",
            [=] {
              const std::string back = tokenizer->clone().decode(tokenizer->encode(*text));
              return std::string(back == *text ? "" : "decoding the ids does not give the text");
            },
            // A clone has an empty cache, so that every pass meets its words anew.
            [=] { benchmark::DoNotOptimize(tokenizer->clone().encode(*text)); }, 0.0,
            static_cast<double>(text->size())});
}

}  // namespace neoloom::bench
