// SPDX-License-Identifier: Apache-2.0
#include "launch/report/page.h"

#include <fmt/format.h>

#include "launch/report/comparison.h"
#include "launch/report/html.h"
#include "launch/report/run_sections.h"

namespace neoloom::launch {
namespace {

// Colours: those of Okabe and Ito, which people with colour blindness can tell apart, darker or lighter where the
// background needs it.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa;
  --heat: 0 114 178; --c0: #0072b2; --c1: #c25200; --c2: #00795a; --c3: #a8457f; --c4: #946800; --c5: #2b8cc4;
  --c6: #6b4fa3; --c7: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e6e9ec; --soft: #9aa4af; --line: #363d46;
  --box: #1d2127; --heat: 86 180 233; --c0: #56b4e9; --c1: #f08a3c; --c2: #2fc79a; --c3: #e08cbb; --c4: #e0b040;
  --c5: #8fd0f5; --c6: #b49be8; --c7: #a8a8a8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1560px; margin: 0 auto; padding: 16px; }
h1 { font-size: 24px; line-height: 1.25; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 32px 0 12px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: 16px; margin: 24px 0 8px; overflow-wrap: anywhere; }
nav ul, .legend { list-style: none; padding: 0; margin: 8px 0; display: flex; flex-wrap: wrap; gap: 4px 16px; }
a { color: var(--c0); }
.missing, .made { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 24px;
  align-items: start; }
figure { margin: 0; min-width: 0; max-width: 760px; }
figcaption { font-weight: 600; margin-bottom: 4px; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--soft); font-size: 12px; }
.chart .y { text-anchor: end; }
.chart .x { text-anchor: middle; }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.bar { fill: var(--c0); }
.area { stroke: none; fill-opacity: 0.85; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.line.c6 { stroke: var(--c6); } .line.c7 { stroke: var(--c7); }
.dot.c0, .area.c0 { fill: var(--c0); } .dot.c1, .area.c1 { fill: var(--c1); } .dot.c2, .area.c2 { fill: var(--c2); }
.dot.c3, .area.c3 { fill: var(--c3); } .dot.c4, .area.c4 { fill: var(--c4); } .dot.c5, .area.c5 { fill: var(--c5); }
.dot.c6, .area.c6 { fill: var(--c6); } .dot.c7, .area.c7 { fill: var(--c7); }
.d1 { stroke-dasharray: 6 3; } .d2 { stroke-dasharray: 2 3; }
.legend { font-size: 13px; color: var(--soft); margin: 4px 0 4px; padding-left: 10%; }
.legend li { overflow-wrap: anywhere; }
.legend svg { width: 22px; height: 10px; margin-right: 6px; }
.scroll { overflow-x: auto; margin: 8px 0 16px; }
details .scroll { max-height: 480px; overflow-y: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { white-space: nowrap; text-align: left; color: var(--soft); padding: 4px 0; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], th:first-child { text-align: left; font-weight: 500; }
thead th { font-weight: 600; background: var(--box); }
.text th, .text td { text-align: left; }
.text td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 12em; }
.h1 { background: rgb(var(--heat) / 0.055); } .h2 { background: rgb(var(--heat) / 0.11); }
.h3 { background: rgb(var(--heat) / 0.165); } .h4 { background: rgb(var(--heat) / 0.22); }
.h5 { background: rgb(var(--heat) / 0.275); } .h6 { background: rgb(var(--heat) / 0.33); }
.h7 { background: rgb(var(--heat) / 0.385); } .h8 { background: rgb(var(--heat) / 0.44); }
.h9 { background: rgb(var(--heat) / 0.495); } .h10 { background: rgb(var(--heat) / 0.55); }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--soft); }
.run { border: 1px solid var(--line); border-radius: 6px; padding: 4px 16px; }
.run > summary { color: var(--ink); font-size: 17px; font-weight: 600; padding: 6px 0; overflow-wrap: anywhere; }
@media (max-width: 560px) { .chart text { font-size: 14.5px; } }
@media print { details > * { display: block; } }
)css";

std::string link(const std::string& id, const std::string& text) {
  return fmt::format("<li><a href=\"#{}\">{}</a></li>", id, text);
}

std::string contents_of_one() {
  return "<nav><ul>" + link("training", "Training") + link("evaluation", "Evaluation") +
         link("speed", "Speed and memory") + link("data", "Data") + link("timeline", "Timeline") +
         link("configuration", "Configuration") + "</ul></nav>\n";
}

std::string contents_of_several() {
  return "<nav><ul>" + link("outcomes", "Last values") + link("seeds", "Seeds") + link("differences", "Differences") +
         link("curves", "Curves") + link("each", "Each run") + "</ul></nav>\n";
}

std::string several(const std::vector<RunRecord>& runs) {
  std::string each;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string sections = run_sections(runs[i], fmt::format("run{}-", i + 1));
    each +=
        fmt::format("<details class=\"run\"><summary>{}</summary>\n{}</details>\n", escaped(runs[i].name), sections);
  }
  return contents_of_several() + comparison_sections(runs) + section("each", "Each run", each);
}

}  // namespace

std::string report_page(const std::vector<RunRecord>& runs) {
  const bool alone = runs.size() == 1;
  const std::string title = alone ? runs.front().name : fmt::format("{} runs", runs.size());
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
      "<title>{} – neoloom report</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n"
      "<p class=\"made\">Made by neoloom from metrics.jsonl and config.yaml of the run folder{}.</p>\n{}</main>\n"
      "</body>\n</html>\n",
      escaped(title), kStyle, escaped(title), alone ? "" : "s",
      alone ? contents_of_one() + run_sections(runs.front(), "") : several(runs));
}

}  // namespace neoloom::launch
