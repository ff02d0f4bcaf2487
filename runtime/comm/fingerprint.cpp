// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/fingerprint.h"

#include <fmt/ranges.h>

#include <array>
#include <bit>
#include <map>
#include <optional>

#include "runtime/comm/collective_error.h"
#include "runtime/core/hash.h"
#include "runtime/core/wire.h"

namespace neoloom::comm {
namespace {

struct Peer {
  std::string host;
  Fingerprint fields;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Peer, host, fields)

std::optional<std::string> value_of(const Fingerprint& fields, const std::string& name) {
  for (const auto& [key, value] : fields) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::string shown(const std::optional<std::string>& value) { return value ? "'" + *value + "'" : "nothing"; }

// Returns the name of the first field whose values differ, in the order of rank 0's fields and then of `other`'s.
std::optional<std::string> first_difference(const Fingerprint& reference, const Fingerprint& other) {
  for (const Fingerprint* fields : {&reference, &other}) {
    for (const auto& [name, value] : *fields) {
      if (value_of(reference, name) != value_of(other, name)) return name;
    }
  }
  return std::nullopt;
}

// Returns true on every rank exactly when all hashes are equal, i.e. max(h) == min(h). Since min(h) is ~max(~h), one
// all-reduce gives both.
bool equal_everywhere(MpiSession& session, uint64_t hash) {
  std::array<int64_t, 2> extremes{std::bit_cast<int64_t>(hash), std::bit_cast<int64_t>(~hash)};
  session.all_reduce_max(extremes);
  return extremes[0] == ~extremes[1];
}

// Returns the hash that most ranks have; of equally frequent ones that of the lowest rank.
uint64_t majority_hash(const std::vector<uint64_t>& hashes) {
  std::map<uint64_t, int> counts;
  for (uint64_t hash : hashes) ++counts[hash];
  uint64_t best = hashes.at(0);
  for (uint64_t hash : hashes) {
    if (counts[hash] > counts[best]) best = hash;
  }
  return best;
}

}  // namespace

void require_equal_fingerprints(MpiSession& session, const Fingerprint& mine) {
  const std::string fields_only = core::to_wire(mine);
  if (equal_everywhere(session, core::xxh3(fields_only.data(), fields_only.size()))) return;

  const std::vector<std::string> texts = session.all_gather(core::to_wire(Peer{session.host_name(), mine}));
  const Peer reference = core::from_wire<Peer>(texts.at(0));
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    const Peer peer = core::from_wire<Peer>(texts[rank]);
    const std::optional<std::string> name = first_difference(reference.fields, peer.fields);
    if (!name) continue;
    throw CollectiveError(core::ErrorKind::kUsage,
                          fmt::format("The ranks disagree on {}: rank 0 on {} has {}, rank {} on {} has {}. "
                                      "Start every rank with the same build, configuration and files",
                                      *name, reference.host, shown(value_of(reference.fields, *name)), rank, peer.host,
                                      shown(value_of(peer.fields, *name))));
  }
  throw CollectiveError(core::ErrorKind::kUsage, "The ranks list the same fingerprint fields in different orders");
}

void require_equal_state(MpiSession& session, uint64_t hash, int64_t step) {
  if (equal_everywhere(session, hash)) return;

  std::vector<uint64_t> hashes;
  std::vector<std::string> hosts;
  for (const std::string& text : session.all_gather(fmt::format("{:016x} {}", hash, session.host_name()))) {
    hashes.push_back(std::stoull(text.substr(0, 16), nullptr, 16));
    hosts.push_back(text.substr(17));
  }
  const uint64_t majority = majority_hash(hashes);
  std::vector<std::string> deviating;
  for (size_t rank = 0; rank < hashes.size(); ++rank) {
    if (hashes[rank] != majority) deviating.push_back(fmt::format("rank {} on {}", rank, hosts[rank]));
  }
  throw CollectiveError(
      core::ErrorKind::kNumeric,
      fmt::format("After step {} the replicas of the training state are no longer equal: "
                  "{} of {} ranks differ from the others ({}). The memory or the devices of those hosts may be faulty: "
                  "start again without them, and the run resumes from its newest checkpoint",
                  step, deviating.size(), hashes.size(), fmt::join(deviating, ", ")));
}

}  // namespace neoloom::comm
