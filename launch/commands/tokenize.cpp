// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/tokenize.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/tokenizer/tokenizer.h"
#include "runtime/core/error.h"
#include "runtime/core/files.h"

namespace neoloom::launch {
namespace {

std::string convert(const data::Tokenizer& tokenizer, const std::string& line, bool decode) {
  if (!decode) return nlohmann::json(tokenizer.encode(line)).dump();
  const nlohmann::json ids = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  core::require(
      ids.is_array() && std::all_of(ids.begin(), ids.end(), [](const auto& id) { return id.is_number_integer(); }),
      core::ErrorKind::kData, "--decode expects a JSON array of ids, found: {}", line.substr(0, 80));
  return tokenizer.decode(ids.get<std::vector<int32_t>>());
}

}  // namespace

int run_tokenize(comm::MpiSession& session, const TokenizeArguments& arguments) {
  session.on_root([&]() -> std::string {
    const data::Tokenizer tokenizer = data::Tokenizer::from_folder(arguments.tokenizer);
    if (arguments.input.empty()) {
      std::cout << convert(tokenizer, arguments.text, arguments.decode) << "\n";
      return "";
    }
    std::istringstream lines(core::read_file(arguments.input));
    for (std::string line; std::getline(lines, line);) std::cout << convert(tokenizer, line, arguments.decode) << "\n";
    std::cout.flush();
    return "";
  });
  return 0;
}

}  // namespace neoloom::launch
