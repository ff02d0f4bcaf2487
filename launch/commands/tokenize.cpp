// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/tokenize.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/readers/lines.h"
#include "data/readers/rows.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/job/hub.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"
#include "runtime/core/json.h"
#include "runtime/core/output.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

using core::ErrorKind;

constexpr size_t kLongestLineBytes = 80;  // in a message

/// Converts one line. `where` opens messages, `kind` says whose fault an error is.
std::string convert(const data::Tokenizer& tokenizer, std::string_view line, bool decode, const std::string& where,
                    ErrorKind kind) {
  const std::string complaint = core::utf8_complaint(line);
  core::require(complaint.empty(), kind, "{}: {}", where, complaint);
  if (!decode) return nlohmann::json(tokenizer.encode_input(line)).dump() + "\n";
  const auto ids = core::parse_json(line, where, kind);
  const auto is_id = [](const nlohmann::json& id) {
    return core::json_integer_within(id, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max());
  };
  core::require(ids.is_array() && std::all_of(ids.begin(), ids.end(), is_id), kind,
                "{}: --decode expects a JSON array of ids, found {}", where, core::quoted(line, kLongestLineBytes));
  return tokenizer.decode(ids.get<std::vector<int32_t>>()) + "\n";
}

}  // namespace

int run_tokenize(comm::MpiSession& session, const TokenizeArguments& arguments) {
  const auto phase = session.phase("tokenizing", comm::MpiSession::kBuilding);
  RunConfig config;
  config.tokenizer_config.pretrained_tokenizer_name = arguments.tokenizer;
  fetch_from_hub(session, config);
  session.run_on_root([&]() -> std::string {
    const data::Tokenizer tokenizer = data::Tokenizer::from_folder(tokenizer_folder(config));
    for (const std::string& note : tokenizer.notes()) session.log().info("tokenizer: " + note);
    core::Output output;
    if (arguments.input.empty()) {
      output.write(convert(tokenizer, arguments.text, arguments.decode, "--text", ErrorKind::kUsage));
    } else {
      const core::MappedFile file(arguments.input);
      data::require_text(arguments.input, file.text());
      data::Lines lines(data::without_byte_order_mark(file.text()));
      for (std::string_view line; lines.next(line);) {
        output.write(convert(tokenizer, line, arguments.decode,
                             fmt::format("{}: line {}", arguments.input, lines.number()), ErrorKind::kData));
      }
    }
    output.finish();
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
