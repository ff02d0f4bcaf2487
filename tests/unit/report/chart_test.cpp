// SPDX-License-Identifier: Apache-2.0
#include "launch/report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "launch/report/html.h"

namespace neoloom::launch {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Ticks, AreMultiplesOfOneTwoOrFiveAroundTheValues) {
  EXPECT_THAT(ticks_around(0.0, 1.0, 5), ElementsAre(0.0, DoubleNear(0.2, 1e-12), DoubleNear(0.4, 1e-12),
                                                     DoubleNear(0.6, 1e-12), DoubleNear(0.8, 1e-12), 1.0));
  EXPECT_THAT(ticks_around(3.0, 97.0, 5), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(ticks_around(-7.0, 12.0, 4), ElementsAre(-10, -5, 0, 5, 10, 15));
}

TEST(Ticks, CoverAnyPairOfBounds) {
  for (const double low : {-1e9, -3.0, 0.0, 1e-7, 0.1, 42.0}) {
    for (const double span : {0.0, 1e-9, 0.013, 1.0, 77.0, 1e12}) {
      for (int most = 2; most < 9; ++most) {
        const std::vector<double> ticks = ticks_around(low, low + span, most);
        ASSERT_GE(ticks.size(), 2U);
        ASSERT_LE(ticks.size(), static_cast<size_t>(2 * most + 3)) << low << " " << span << " " << most;
        EXPECT_LE(ticks.front(), low + (std::abs(low) + span) * 1e-8);
        EXPECT_GE(ticks.back(), low + span - (std::abs(low) + span) * 1e-8);
      }
    }
  }
}

TEST(Ticks, OfStepsAreIntegers) { EXPECT_THAT(ticks_around(1.0, 3.0, 6, /*integers=*/true), ElementsAre(1, 2, 3)); }

TEST(Ticks, OfValuesThatAreNotFiniteAreThoseOfZeroToOne) {
  EXPECT_EQ(ticks_around(kNan, 1.0, 5).size(), 6U);
  EXPECT_EQ(ticks_around(0.0, std::numeric_limits<double>::infinity(), 5).size(), 6U);
}

TEST(TickText, HasTheDigitsThatTellTicksApart) {
  EXPECT_EQ(tick_text(0.30000000000000004, 0.1), "0.3");
  EXPECT_EQ(tick_text(0.0, 0.25), "0");
  EXPECT_EQ(tick_text(2.5, 0.25), "2.5");
  EXPECT_EQ(tick_text(1e-5, 1e-5), "1e-05");
  EXPECT_EQ(tick_text(1.2e-4, 2e-5), "1.2e-04");
  EXPECT_EQ(tick_text(20000.0, 5000.0), "20k");
  EXPECT_EQ(tick_text(2000.0, 500.0), "2000");
  EXPECT_EQ(tick_text(1.5e6, 5e5), "1.5M");
  EXPECT_EQ(tick_text(-40.0, 20.0), "-40");
}

TEST(Rows, AreThinnedEvenlyWithTheFirstAndTheLast) {
  EXPECT_THAT(evenly(3, 10), ElementsAre(0, 1, 2));
  EXPECT_THAT(evenly(9, 3), ElementsAre(0, 4, 8));
  EXPECT_THAT(evenly(0, 3), ElementsAre());
}

TEST(Html, EscapesWhatMarkupMeans) {
  EXPECT_EQ(escaped("<script>alert('1') & \"2\"</script>"),
            "&lt;script&gt;alert(&#39;1&#39;) &amp; &quot;2&quot;&lt;/script&gt;");
  EXPECT_EQ(escaped("a\tb\nc"), "a\tb\nc");
  EXPECT_EQ(escaped(std::string_view("\0\x1b\x7f", 3)), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(escaped("bad \xff byte"), "bad \uFFFD byte");
}

TEST(Html, NumbersReadBackAsTheyWere) {
  for (const double value : {0.1, 1.0 / 3.0, 1e-300, 123456789.0, -2.5}) EXPECT_EQ(std::stod(exact(value)), value);
  EXPECT_EQ(exact(kNan), "–");
}

TEST(LineChart, HasANameADescriptionAndItsNumbers) {
  const std::string html = line_chart(
      {.title = "Loss <of> all",
       .x_label = "step",
       .series = {{.name = "a & b", .x = {1, 2, 3}, .y = {0.5, kNan, 0.25}}, {.name = "c", .x = {2}, .y = {0.125}}}});
  EXPECT_THAT(html, HasSubstr("role=\"img\" aria-label=\"Loss &lt;of&gt; all over step. a &amp; b: from 0.5 at 1 to "
                              "0.25 at 3; least 0.25 at 3, greatest 0.5 at 1."));
  EXPECT_THAT(html, HasSubstr("<tr><th scope=\"row\">2</th><td>–</td><td>0.125</td></tr>"));
  EXPECT_THAT(html, HasSubstr("viewBox=\"0 0 480 240\""));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

TEST(LineChart, BreaksItsLineWhereAValueIsMissing) {
  const std::string html = line_chart(
      {.title = "t", .x_label = "x", .series = {{.name = "a", .x = {1, 2, 3, 4, 5}, .y = {0, 1, kNan, 1, 0}}}});
  const size_t begin = html.find("class=\"line c0 d0\" d=\"");
  const std::string path = html.substr(begin, html.find("/>", begin) - begin);
  EXPECT_EQ(std::count(path.begin(), path.end(), 'M'), 2);
  EXPECT_EQ(std::count(path.begin(), path.end(), 'L'), 2);
}

TEST(LineChart, WithoutAFiniteValueSaysSo) {
  const std::string html = line_chart({.title = "t", .x_label = "x", .series = {{.name = "a", .x = {1}, .y = {kNan}}}});
  EXPECT_THAT(html, HasSubstr("There is no finite value to draw."));
  EXPECT_THAT(html, Not(HasSubstr("<svg class=\"chart\"")));
}

TEST(LineChart, OfManyValuesKeepsThePeak) {
  Series series{.name = "a", .x = {}, .y = {}};
  for (int i = 0; i < 100'000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 54'321 ? 9.0 : 1.0);
  }
  const std::string html = line_chart({.title = "t", .x_label = "x", .series = {series}});
  EXPECT_LT(html.size(), 60'000U);
  EXPECT_THAT(html, HasSubstr("greatest 9 at 54321"));
  EXPECT_THAT(html, HasSubstr(" 29.2"));  // the place of 9 between the ticks 0 and 10
  EXPECT_THAT(html, HasSubstr("500 rows; metrics.jsonl has all"));
}

TEST(StackedChart, OfOneValueFillsTheWidth) {
  const std::string html =
      stacked_chart({.title = "t",
                     .x_label = "step",
                     .series = {{.name = "compute", .x = {7}, .y = {0.5}}, {.name = "data", .x = {7}, .y = {0.25}}}});
  EXPECT_THAT(html, HasSubstr("d=\"M58.0 106.0H460.0L460.0 202.0H58.0Z\""));
}

TEST(BarChart, HasABarForEachBin) {
  const std::string html = bar_chart("Samples", "tokens", {"1–4", "5–8"}, {3, 1});
  EXPECT_THAT(html, HasSubstr("aria-label=\"Samples by tokens. 1–4: 3. 5–8: 1.\""));
  EXPECT_THAT(html, HasSubstr("<tr><th scope=\"row\">1–4</th><td>3</td></tr>"));
}

}  // namespace
}  // namespace neoloom::launch
