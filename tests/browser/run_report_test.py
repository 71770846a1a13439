"""The report of `trainyard run`, clicked through in a browser: a pipeline, one device alone, TPUs, what does not fit."""

import pathlib
import tempfile
import unittest

import browser
from browser import Browser, root, trainyard

library = root / "scenarios" / "library"
attack = "</script><script>document.title='attacked'</script>"


def rows(view, section):
    return [[cell.text for cell in row.find_elements("css selector", "td")] for row in view.find_all(f"#{section} .table-frame:last-of-type tbody tr")]


class RunReport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.browser.quit()
        cls.folder.cleanup()

    def report(self, name, scenario, *arguments):
        page = pathlib.Path(self.folder.name) / f"{name}.html"
        if not page.exists():
            trainyard("run", library / f"{scenario}.yaml", "--report", page, *arguments)
        return page

    def open(self, page):
        self.browser.open(page)
        self.addCleanup(self.expect_quiet, page)

    def expect_quiet(self, page):
        self.assertEqual(self.browser.errors(), [])
        self.assertEqual(self.browser.requests(), [page.as_uri()])

    def pipeline(self):
        self.open(self.report("pipeline", "gpt-14.6b-zb-h2-16-a100"))
        return self.browser

    def test_names_the_scenario_and_draws_every_part(self):
        view = self.pipeline()
        self.assertEqual(view.driver.title, "GPT 14.6B with ZB-H2 on 16 A100 – Trainyard")
        self.assertEqual([link.text for link in view.find_all("#contents a")],
                         ["Summary", "Where the step goes", "What decides the step", "Memory", "What ranks do when",
                          "Communication", "Links", "Layers and operators", "Scenario"])
        self.assertIn("from scenario gpt-14.6b-zb-h2-16-a100.yaml", view.find("footer").text)
        self.assertIn("schedule: zb-h2", view.find("#scenario pre").text)
        view.screenshot("pipeline-1400.png")

    def test_gives_figures_their_units(self):
        view = self.pipeline()
        shown = lambda kind, value: view.script("return trainyard.format[arguments[0]](arguments[1])", kind, value)
        for kind, value, text in [("count", 11800, "11.8 K"), ("count", 9999, "9,999"), ("count", 2.74e6, "2.74 M"),
                                  ("seconds", 0.00123, "1.23 ms"), ("seconds", 0, "0 s"), ("seconds", 90, "90 s"), ("seconds", 7200, "2 h"),
                                  ("bytes", 1536, "1.5 KiB"), ("bytes", 3 * 2**40, "3 TiB"), ("rate", 50e9, "50 GB/s"),
                                  ("percent", 0.5312, "53.1 %"), ("percent", 0.000056, "0.0056 %"), ("flops", 6.16e14, "616 TFLOP")]:
            self.assertEqual(shown(kind, value), text)

    def test_sorts_a_table_by_the_column_that_is_clicked(self):
        view = self.pipeline()
        sums = lambda: [row[3] for row in rows(view, "layers")]
        by_time = sums()
        operators = lambda: [row[1] for row in rows(view, "layers")]
        view.button("#layers thead", "operator").click()
        self.assertEqual(view.find("#layers th:nth-child(2)").get_attribute("aria-sort"), "ascending")
        self.assertEqual(operators(), sorted(operators(), key=str.lower))
        view.button("#layers thead", "operator").click()
        self.assertEqual(operators(), sorted(operators(), key=str.lower, reverse=True))
        view.button("#layers thead", "of the step").click()
        self.assertEqual(sums(), by_time)

    def test_filters_a_table_and_adds_up_what_is_left(self):
        view = self.pipeline()
        view.button("#layers", "by layer and operator").click()
        everything = view.find("#layers [aria-live]").text
        view.find("#layers input").send_keys("forward fc1")
        self.assertRegex(view.find("#layers [aria-live]").text, r"^46 of \d+ rows$")
        self.assertTrue(all(row[2] == "fc1" for row in rows(view, "layers")))
        self.assertEqual(len(rows(view, "layers")), 25)
        view.button("#layers", "show all 46, not only 25").click()
        self.assertEqual(len(rows(view, "layers")), 46)
        self.assertEqual(view.find("#layers tfoot td").text, "sum")
        view.find("#layers input").clear()
        view.find("#layers input").send_keys(" ")
        self.assertEqual(view.find("#layers [aria-live]").text, everything)

    def test_hides_a_series_whose_name_is_clicked(self):
        view = self.pipeline()
        box = view.chart("breakdown", "(({left, top}) => ({left: left + 5, top: top + 5}))(chart.legend.legendHitBoxes[0])")
        self.assertTrue(view.chart("breakdown", "chart.isDatasetVisible(0)"))
        view.move_to("#breakdown canvas", box["left"], box["top"], click=True)
        view.wait(lambda: not view.chart("breakdown", "chart.isDatasetVisible(0)"), "the series is hidden")

    def test_tells_in_a_tooltip_what_is_under_the_pointer(self):
        view = self.pipeline()
        bar = view.chart("breakdown", "(({x, y, base}) => ({x: (x + base) / 2, y}))(chart.getDatasetMeta(0).data[0])")
        view.move_to("#breakdown canvas", bar["x"], bar["y"])
        view.wait(lambda: view.chart("breakdown", "chart.tooltip.opacity") == 1, "a tooltip")
        self.assertRegex(view.chart("breakdown", "chart.tooltip.body[0].lines[0]"), r"^ matrix products: .* s, \d+\.\d %$")
        first = view.chart("schedule", "(({x, y, base}) => ({x: (x + base) / 2, y}))(chart.getDatasetMeta(0).data[0])")
        view.move_to("#schedule canvas", first["x"], first["y"])
        view.wait(lambda: view.chart("schedule", "chart.tooltip.opacity") == 1, "a tooltip")
        self.assertEqual(view.chart("schedule", "chart.tooltip.title[0]"), "stage 0 (rank 0)")
        self.assertRegex(view.chart("schedule", "chart.tooltip.body[0].lines[0]"), r"^ forward of micro-batch \d+, from layer 0$")

    def test_zooms_into_the_schedule(self):
        view = self.pipeline()
        width = lambda: view.chart("schedule", "chart.scales.x.max - chart.scales.x.min")
        view.button("#schedule", "whole step").click()
        whole = width()
        view.button("#schedule", "+").click()
        self.assertAlmostEqual(width(), whole / 2)
        view.button("#schedule", "whole step").click()
        self.assertAlmostEqual(width(), whole)

    def test_draws_one_device_without_communication(self):
        self.open(self.report("alone", "resnet50-1-a100"))
        self.assertIn("There is none.", self.browser.find("#communication").text)
        self.assertIn("samples/s", self.browser.find("#summary").text)
        self.browser.screenshot("alone-1400.png")

    def test_draws_tpus_in_dark_colours_where_these_are_preferred(self):
        self.open(self.report("tpu", "llama2-70b-maxtext-256-v5p"))
        light = self.browser.script("return getComputedStyle(document.body).backgroundColor")
        self.browser.prefer("dark")
        self.assertNotEqual(self.browser.script("return getComputedStyle(document.body).backgroundColor"), light)
        self.browser.screenshot("tpu-dark-1400.png")
        self.browser.prefer("light")

    def test_says_what_would_make_it_fit(self):
        self.open(self.report("too-large", "llama2-7b-qlora-rtx-4090", "--set", "training.finetune=full"))
        self.assertIn("does not fit", self.browser.find("#summary").text)
        self.assertIn("What takes most of it", self.browser.find("#memory").text)
        self.assertIn("with --set training.finetune=full in it", self.browser.find("#scenario").text)

    def test_names_the_trace_beside_it(self):
        trace = pathlib.Path(self.folder.name) / "a trace.json.gz"
        self.open(self.report("traced", "resnet50-1-a100", "--trace", trace))
        self.assertEqual(self.browser.find("#scenario a").get_attribute("href"), trace.as_uri())

    def test_shows_a_hostile_name_as_the_text_it_is(self):
        self.open(self.report("hostile", "resnet50-1-a100", "--set", f'name="{attack}"'))
        self.assertEqual(self.browser.find("h1").text, attack)
        self.assertEqual(self.browser.driver.title, f"{attack} – Trainyard")

    def test_fits_a_narrow_window(self):
        page = self.report("large", "llama3-405b-16384-h100")
        narrow = Browser(width=500)
        try:
            narrow.open(page)
            self.assertLessEqual(narrow.script("return document.documentElement.scrollWidth"), 500)
            narrow.screenshot("narrow-500.png")
        finally:
            narrow.quit()

    def test_stays_small_on_many_devices(self):
        page = self.report("large", "llama3-405b-16384-h100")
        self.assertLess(page.stat().st_size, 3_000_000)


if __name__ == "__main__":
    print(f"screenshots: {browser.folder}")
    unittest.main()
