// SPDX-License-Identifier: Apache-2.0
// Compares configs/KEYS.md with the tables. After a change of the tables, this writes the page:
//   NEOLOOM_WRITE_TABLES=1 build/unit_config --gtest_filter='KeysPage.*'
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <map>

#include "launch/config/document.h"
#include "launch/config/schema.h"
#include "tests/unit/config/hf_defaults.h"

namespace neoloom::launch {
namespace {

constexpr const char* kPage = NL_SOURCE_DIR "/configs/KEYS.md";
constexpr std::string_view kHead = R"(# Keys of Hugging Face

Every key that `TrainingArguments`, `LoraConfig`, `AutoTokenizer.from_pretrained`, `AutoModelFor*.from_pretrained` and
GPT-Neo's `config.json` have, keys of transformers 4 and of TRL's `SFTConfig`, and usual spellings of scripts. The rows
without a default there are neoloom's own keys or other spellings. [README.md](README.md) explains the honoured keys.

- **honoured**: the key does what it says, or leads to the key named here.
- **no effect**: neoloom takes any value. If the value is not Hugging Face's default, one line of the log says why it has
  no effect.
- **refused**: neoloom takes Hugging Face's default, and values that mean what neoloom does anyway. Any other value ends
  the run with the reason and what to do. If a row names values, neoloom takes these with a line of the log.

Unit tests compare this page with the reader's tables, and tests/parity compares it with transformers 5.17.0 and peft
0.21.2.
)";

/// The group of the document, its heading, and whose keys it has.
struct Section {
  std::string_view group, source;
};
constexpr std::array<Section, 7> kSections = {
    {{"trainer_config", "`TrainingArguments`"},
     {"peft_config", "`LoraConfig`"},
     {"tokenizer_config", "`AutoTokenizer.from_pretrained`"},
     {"model_config", "`AutoModelFor*.from_pretrained` and GPT-Neo's `config.json`"},
     {"trainer_config.accelerator_config", ""},
     {"trainer_config.fsdp_config", ""},
     {"peft_config.runtime_config", ""}}};

std::string code(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return text.empty() ? "`\"\"`" : fmt::format("`{}`", escaped);
}

std::string rendered(const nlohmann::json& value) { return render(parse_document(value.dump(), "default")); }

struct Row {
  std::string key, default_value, here, reason;
  bool theirs = false;  // a key of today's classes
};

class Page {
 public:
  std::string text() {
    std::string tables;
    for (const Section& section : kSections) tables += table(section);
    return fmt::format("{}\n{}{}", kHead, counts(), tables);
  }

 private:
  std::vector<Row> rows_of(const Section& section) {
    std::vector<Row> rows;
    for (const Field& field : schema_.fields) {
      if (field.group == section.group) rows.push_back({field.key, "", "honoured", ""});
    }
    for (const Alias& alias : schema_.aliases) {
      if (alias.group == section.group) {
        const std::string target = fmt::format("honoured as `{}.{}`", alias.target_group, alias.key);
        rows.push_back({std::string(alias.old_key), "", target, ""});
      }
    }
    for (const ForeignKey& key : schema_.foreign) {
      if (key.group == section.group) rows.push_back(foreign_row(key));
    }
    for (Row& row : rows) {
      row.theirs = defaults_.contains(section.group) && defaults_.at(section.group).contains(row.key);
      if (row.theirs && row.default_value.empty()) {
        row.default_value = code(rendered(defaults_.at(section.group).at(row.key)));
      }
    }
    return rows;
  }

  static Row foreign_row(const ForeignKey& key) {
    Row row{std::string(key.key), code(std::string(key.quiet.front())), "", std::string(key.reason)};
    row.here = key.kind == ForeignKey::Kind::kNoEffect ? "no effect" : "refused";
    for (const std::string_view value : key.said) {
      row.here += fmt::format("{} {}", value == key.said.front() ? ", but not" : " or", code(std::string(value)));
    }
    return row;
  }

  std::string table(const Section& section) {
    std::string text =
        fmt::format("\n## `{}`\n\n| key | default there | here | why, and what to do |\n| --- | --- | --- | --- |\n",
                    section.group);
    for (const Row& row : rows_of(section)) {
      const std::string whose = row.theirs ? std::string(section.source) : "others";
      ++counts_[{whose, row.here.substr(0, row.here.find_first_of(" ,"))}];
      text += fmt::format("| `{}` | {} | {} | {} |\n", row.key, row.default_value, row.here, row.reason);
    }
    return text;
  }

  std::string counts() {
    std::string text =
        "| keys of | all | honoured | no effect | refused | silent |\n| --- | ---: | ---: | ---: | ---: | ---: |\n";
    std::vector<std::string> sources;
    for (const Section& section : kSections) {
      if (!section.source.empty()) sources.emplace_back(section.source);
    }
    sources.emplace_back("others");
    for (const std::string& source : sources) {
      const int honoured = counts_[{source, "honoured"}], idle = counts_[{source, "no"}];
      const int refused = counts_[{source, "refused"}];
      const std::string name = source == "others" ? "older versions, TRL and scripts; maps; neoloom's own" : source;
      text += fmt::format("| {} | {} | {} | {} | {} | 0 |\n", name, honoured + idle + refused, honoured, idle, refused);
    }
    return text;
  }

  Schema schema_;
  nlohmann::json defaults_ = hugging_face_defaults();
  std::map<std::pair<std::string, std::string>, int> counts_;
};

TEST(KeysPage, IsWhatTheTablesSay) {
  const std::string page = Page().text();
  if (std::getenv("NEOLOOM_WRITE_TABLES") != nullptr) std::ofstream(kPage) << page;
  EXPECT_EQ(core::read_file(kPage), page);
}

}  // namespace
}  // namespace neoloom::launch
