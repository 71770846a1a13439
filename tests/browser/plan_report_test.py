"""The report of `trainyard plan`, clicked through in a browser: of a search made by hand, whose figures are known."""

import copy
import json
import pathlib
import re
import tempfile
import unittest

import browser
import plan_data
from browser import Browser, root, trainyard

attack = "</script><script>document.title='attacked'</script>"
pages = root / "scenarios" / "pages"


class PlanReport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(cls.folder.name)
        run = folder / "run.html"
        trainyard("run", root / "scenarios" / "library" / "resnet50-1-a100.yaml", "--report", run, "--json", folder / "run.json")
        cls.result = json.loads((folder / "run.json").read_text())
        # The frame of a page is the same whatever is in it.
        cls.frame = run.read_text()
        cls.scripts = "".join(f"<script>\n{(pages / name).read_text()}</script>\n" for name in ("plan-words.js", "plan.js"))

    @classmethod
    def tearDownClass(cls):
        cls.browser.quit()
        cls.folder.cleanup()

    def page_of(self, name, change=lambda data: None):
        data = plan_data.search(copy.deepcopy(self.result))
        change(data)
        text = json.dumps(data).replace("<", "\\u003c")
        html = re.sub(r'(?<=type="application/json">).*?(?=</script>)', lambda _: text, self.frame, count=1, flags=re.DOTALL)
        page = pathlib.Path(self.folder.name) / f"{name}.html"
        page.write_text(html[:html.rindex("<script>")] + self.scripts + "</body>\n</html>\n")
        return page

    def open(self, name="plan", change=lambda data: None):
        page = self.page_of(name, change)
        self.browser.open(page)
        self.addCleanup(self.expect_quiet, page)
        return self.browser

    def expect_quiet(self, page):
        self.assertEqual(self.browser.errors(), [])
        self.assertEqual(self.browser.requests(), [page.as_uri()])

    def rows(self, section, table=0):
        body = self.browser.find_all(f"#{section} tbody")[table]
        return [[cell.text for cell in row.find_elements("css selector", "td")] for row in body.find_elements("css selector", "tr")]

    def reasons(self):
        return " ".join(item.text for item in self.browser.find_all("#reasons li"))

    def test_draws_every_part(self):
        view = self.open()
        self.assertEqual([link.text for link in view.find_all("#contents a")],
                         ["Summary", "The best plan", "The best plans", "Time and memory", "One key changed", "What was searched"])
        figures = [figure.text.split("\n") for figure in view.find_all("#summary .figure")]
        self.assertEqual(figures[0][:2], ["step time", "10 s"])
        self.assertEqual(figures[2], ["memory", "70 GiB", "of 79 GiB, 88.6 %"])
        self.assertEqual(figures[3][:2], ["cost per step", "3.556 USD"])
        view.screenshot("plan-1400.png")

    def test_opens_after_a_search(self):
        page = pathlib.Path(self.folder.name) / "searched.html"
        results = page.with_suffix(".json")
        trainyard("plan", root / "scenarios" / "library" / "llama3-8b-fsdp-8-h100.yaml", "--set", "strategy={framework: auto}",
                  "--report", page, "--json", results)
        self.browser.open(page)
        self.addCleanup(self.expect_quiet, page)
        best = json.loads(results.read_text())["plans"][0]
        text = self.browser.find("#plan-text").text
        for key, value in best["strategy"].items():
            self.assertIn(f"  {key}: {json.dumps(value)}", text)
        self.assertEqual(self.browser.chart("front", "chart.data.datasets[0].data[0].y"), float(f"{best['result']['step_time_s']:.6g}"))
        self.assertGreater(len(self.reasons()), 100)
        self.browser.screenshot("plan-searched-1400.png")

    def test_counts_what_was_searched_and_cut_off(self):
        view = self.open()
        self.assertIn("132,480 combinations of 2 frameworks: 98,112 do not run, 34,368 do. Of these 1,400 were simulated, 21,600 do not fit "
                      "in memory, 10,468 are proved to be worse than the best.", view.find("#searched").text)
        self.assertEqual(self.rows("searched")[0], ["strategy.tensor", "1, 2, 4, 8"])
        self.assertIn("strategy.overlap_grad_reduce true", view.find("#searched").text)
        self.assertIn("Left out: keras: no plan fits", view.find("#searched").text)

    def test_writes_the_best_plan_as_a_scenario_has_it(self):
        view = self.open()
        text = view.find("#plan-text").text
        self.assertIn('strategy:\n  framework: "megatron-lm"\n  tensor: 8\n', text)
        self.assertIn("training:\n  global_batch: 1024\n", text)
        view.find("#copy").click()
        self.assertEqual(view.script("return getSelection().toString().trim()"), text)

    def test_says_in_words_why_it_wins(self):
        self.open()
        words = self.reasons()
        self.assertIn("Its devices compute 84.0 % of the step; the rest is mostly waiting for tensor 9.0 %, pipeline bubble 5.0 %", words)
        self.assertIn("the least that one costs is 0.6 %, for micro_batch 1 → 2: pipeline bubble +3.1 %.", words)
        self.assertIn("recompute, where any other value costs at least 28.0 %", words)
        self.assertIn("Memory holds it back: micro_batch 1 → 4 would be 1.0 % faster, but needs 94 GiB", words)
        self.assertIn("the leanest takes 30 GiB, for 16.0 % more time", words)

    def test_does_not_call_the_best_what_a_neighbour_beats(self):
        def beaten(data):
            data["neighbours"][0].update(step_time_s=9.5, to_s=9.5)
            data["stopped"] = True

        view = self.open("beaten", beaten)
        self.assertIn("it would take less time: micro_batch 1 → 2 by 5.0 %; the search was stopped before", self.reasons())
        self.assertIn("stopped before its end", view.find("#summary .warning").text)

    def test_lists_the_best_plans_by_what_tells_them_apart(self):
        view = self.open()
        self.assertEqual([head.text for head in view.find_all("#plans thead button")][:5], ["#", "pipeline", "virtual_pipeline", "micro_batch", "recompute"])
        self.assertEqual([row[6] for row in self.rows("plans")], ["", "0.6 %", "1.6 %", "4.0 %", "9.0 %"])
        self.assertIn("All have framework megatron-lm, tensor 8", view.find("#plans").text)
        view.find_all("#plans tbody tr")[2].click()
        self.assertIn("# plan 3", view.find("#chosen-plan").text)
        self.assertIn("pipeline: 8", view.find("#chosen-plan").text)

    def test_joins_the_front_and_marks_the_best(self):
        view = self.open()
        self.assertEqual(view.chart("front", "chart.data.datasets.map(({label}) => label)"), ["best", "Pareto front", "other plans"])
        line = view.chart("front", "chart.data.datasets[1].data.map(({x, y}) => [x, y])")
        self.assertEqual(len(line), 11)
        self.assertEqual(line, sorted(line))
        self.assertEqual([y for _, y in line], sorted((y for _, y in line), reverse=True))
        self.assertEqual(view.chart("front", "chart.data.datasets[0].data.map(({x, y}) => [x, y])"), [[70 * 2**30, 10]])
        self.assertEqual(len(self.rows("front")), 11)

    def test_draws_slow_plans_when_asked_to(self):
        view = self.open()
        others = lambda: view.chart("front", "chart.data.datasets[2].data.length")
        near = others()
        self.assertIn(f"{900 - 11 - near} plans whose step time is more than 1.5 times", view.find("#front-note").text)
        view.find("#front-whole").click()
        self.assertEqual(others(), 900 - 11)
        self.assertEqual(view.find("#front-note").text, "")
        view.find("#front-log").click()
        self.assertEqual(view.chart("front", "chart.scales.y.type"), "logarithmic")

    def test_draws_cost_and_energy_over_memory(self):
        view = self.open()
        view.button("#front", "energy per step").click()
        self.assertEqual(view.chart("front", "chart.scales.y.options.title.text"), "energy per step")
        self.assertEqual(view.chart("front", "chart.data.datasets[0].data[0].y"), 1.4)

    def test_tells_in_a_tooltip_which_plan_is_under_the_pointer(self):
        view = self.open()
        at = view.chart("front", "(({x, y}) => ({x, y}))(chart.getDatasetMeta(1).data[0])")
        view.move_to("#front canvas", at["x"], at["y"])
        view.wait(lambda: view.chart("front", "chart.tooltip.opacity") == 1, "a tooltip")
        lines = " ".join(view.chart("front", "chart.tooltip.body[0].lines"))
        self.assertIn("11.6 s, +16.0 %; 30 GiB", lines)
        self.assertIn("framework megatron-lm, tensor 8", lines)

    def test_stacks_the_causes_of_each_change(self):
        view = self.open()
        labels = view.chart("neighbours", "chart.data.labels")
        self.assertEqual(labels[0], "micro_batch 1 → 2  +0.6 %")
        self.assertEqual(len(labels), 5)
        sums = view.chart("neighbours", "chart.data.labels.map((label, i) => chart.data.datasets.reduce((sum, {data}) => sum + data[i], 0))")
        for total, expected in zip(sums, [0.006, 0.016, 0.12, 0.15, 0.28]):
            self.assertAlmostEqual(total, expected)

    def test_lists_changes_that_do_not_fit_or_do_not_run(self):
        self.open()
        self.assertEqual(self.rows("neighbours", 1), [["micro_batch 1 → 4", "-1.0 %", "9.9 s", "94 GiB", "matrix products −4.0 % (larger products)"]])
        self.assertEqual(self.rows("neighbours", 2)[1], ["context 2", "<b>context</b> does not divide the devices"])

    def test_opens_where_nothing_fits(self):
        def nothing(data):
            data.update(plans=[], neighbours=[])
            data["candidates"].update(rows=[], all=0)

        self.assertIn("Nothing was found that fits in memory", self.open("nothing", nothing).find("#summary").text)

    def test_does_without_prices_and_energy(self):
        def free(data):
            for plan in data["plans"]:
                plan["result"]["cost"] = {}
            for row in data["candidates"]["rows"]:
                row[2] = row[3] = None

        view = self.open("free", free)
        self.assertNotIn("cost", view.find("#summary").text)
        self.assertEqual(len(view.find_all("#front .controls [role='group']")), 0)

    def test_shows_hostile_texts_as_they_are(self):
        def hostile(data):
            data["plans"][0]["strategy"] = attack
            data["neighbours"][0]["causes"][0]["why"] = attack

        view = self.open("hostile", hostile)
        self.assertIn(attack, view.find("#plan-text").text)
        self.assertIn(attack, view.find("#neighbours").text)
        self.assertNotEqual(view.driver.title, "attacked")

    def test_draws_in_dark_colours_where_these_are_preferred(self):
        view = self.open()
        view.prefer("dark")
        view.screenshot("plan-dark-1400.png")
        view.prefer("light")

    def test_fits_a_narrow_window(self):
        page = self.page_of("narrow")
        narrow = Browser(width=500)
        try:
            narrow.open(page)
            self.assertLessEqual(narrow.script("return document.documentElement.scrollWidth"), 500)
            narrow.screenshot("plan-500.png")
        finally:
            narrow.quit()


if __name__ == "__main__":
    print(f"screenshots: {browser.folder}")
    unittest.main()
