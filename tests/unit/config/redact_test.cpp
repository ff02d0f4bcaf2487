// SPDX-License-Identifier: Apache-2.0
#include "launch/config/redact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/support.h"

namespace neoloom::launch {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string kToken = "hf_" + std::string("AbCdEfGhIjKlMnOpQrStUvWxYz01234567");

TEST(Secrets, NamesOfSecretsAreKnownFromThoseOfSpecialTokens) {
  for (const char* name :
       {"hub_token", "token", "push_to_hub_token", "wandb_api_key", "--db-password", "CLIENT_SECRET"}) {
    EXPECT_TRUE(names_secret(name)) << name;
  }
  for (const char* name :
       {"eos_token", "bos_token", "add_eos_token", "pad_token", "unk_token", "max_tokens", "split_special_tokens"}) {
    EXPECT_FALSE(names_secret(name)) << name;
  }
}

TEST(Secrets, TokensAndCredentialsAreHiddenInAnyText) {
  EXPECT_EQ(redacted("see " + kToken + "."), "see hf_***.");
  EXPECT_EQ(redacted("hf_abc12345"), "hf_***");
  EXPECT_EQ(redacted("https://me:secret@host/a b"), "https://***@host/a b");
  EXPECT_EQ(redacted("data/hf_classification.jsonl and hf_model"), "data/hf_classification.jsonl and hf_model");
  EXPECT_EQ(redacted("https://host/a@b: c"), "https://host/a@b: c");
  EXPECT_EQ(redacted_assignment("trainer_config.hub_token=abc"), "trainer_config.hub_token=***");
  EXPECT_EQ(redacted_assignment("trainer_config.seed=1"), "trainer_config.seed=1");
}

TEST(Secrets, NoMessageHoldsOne) {
  const std::vector<std::string> documents = {
      "trainer_config: {hub_token: " + kToken + "}\n",
      "trainer_config: {push_to_hub_token: plain-text-secret}\n",
      "trainer_config: {run_password: plain-text-secret}\n",
      "model_config: {token: plain-text-secret}\n",
      "model_config: {use_auth_token: " + kToken + "}\n",
      "model_config: {pretrained_model_name: " + kToken + "}\n",
      "model_config: {pretrained_model_name: \"https://me:plain-text-secret@host/model\"}\n",
      "data: {label_names: [a, " + kToken + "]}\n",
      "trainer_config: {seed: " + kToken + "}\n",
      "{\"trainer_config\": {\"hub_token\": \"plain-text-secret}}",
      "{\"trainer_config\": {\"hub_token\": \"plain-text-secret\" 1}}",
  };
  for (const std::string& document : documents) {
    const std::string message = redacted(refusal(document));
    EXPECT_THAT(message, AllOf(Not(HasSubstr("plain-text-secret")), Not(HasSubstr(kToken)), Not("accepted")))
        << document;
  }
  for (const std::string set : {"trainer_config.hub_token=plain-text-secret",
                                "trainer_config.api_key=plain-text-secret", "api_key=plain-text-secret"}) {
    EXPECT_THAT(refusal("", {set}), AllOf(Not(HasSubstr("plain-text-secret")), Not("accepted"))) << set;
  }
}

TEST(Secrets, AConfigurationThatHoldsOneIsNotStored) {
  EXPECT_THAT(refusal("data: {train: \"" + kToken + "\"}\n"),
              HasSubstr("run.yaml:1: data.train: holds a token or a password"));
}

}  // namespace
}  // namespace neoloom::launch
