// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

namespace neoloom::core {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Of the names that logging.level takes: debug, info, warning, error. Throws: Error(kUsage) for another word.
LogLevel log_level_from_name(const std::string& name);

/// What a process says on stderr about its work, a line or more a message. Results of commands go to stdout and never
/// through here. On a terminal with colours the word "warning" is yellow, and "error" red. Thread: any.
class Logger {
 public:
  /// `prefix`: before each message.
  explicit Logger(std::string prefix = "");
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  /// Messages below it are dropped. kInfo at first.
  void set_level(LogLevel level);
  LogLevel level() const;

  void debug(const std::string& text);
  void detail(const std::string& text);  // of the level kDebug, without the word
  void info(const std::string& text);
  void warning(const std::string& text);
  void error(const std::string& text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace neoloom::core
