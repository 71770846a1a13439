"""The report of `trainyard sweep`, clicked through in a browser: a few series, many of them, what is not possible."""

import json
import pathlib
import re
import tempfile
import unittest

import browser
from browser import Browser, trainyard

attack = "</script><script>document.title='attacked'</script><b>bold</b>"

base = """
name: base
cluster: {node: dgx-h100, nodes: 1}
model: llama3-8b
training: {global_batch: 16, micro_batch: 1, sequence: 8192, precision: bf16, optimizer: adamw, recompute: full}
strategy: {framework: pytorch-fsdp}
"""
# FSDP and Megatron fit, DDP does not fit, five ranks share no head.
few = f"""
base: base.yaml
vary:
  scale: {{cluster.nodes: [1, 2, 4, 8], training.global_batch: [16, 32, 64, 128]}}
  layout:
    - {{name: FSDP, strategy.framework: pytorch-fsdp}}
    - {{name: DDP, strategy.framework: pytorch-ddp}}
    - {{name: "{attack}", strategy.framework: megatron-lm, strategy.tensor: 8}}
    - {{name: Five, strategy.framework: megatron-lm, strategy.tensor: 5}}
"""
many = """
base: base.yaml
vary:
  cluster.nodes: [1, 2, 4]
  training.global_batch: [64]
  strategy.framework: [pytorch-fsdp, pytorch-ddp, deepspeed, megatron-lm]
  training.recompute: [none, full]
  training.sequence: [512, 1024, 2048, 4096, 8192]
"""
rates = """
base: base.yaml
vary:
  cluster.nodes: [2, 4]
  training.global_batch: [64]
  cluster.node.nic_rate: [1600 Gbit/s, 200 Gbit/s, 400 Gbit/s]
"""


class SweepReport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(cls.folder.name)
        (folder / "base.yaml").write_text(base)
        cls.pages = {}
        for name, sweep in {"few": few, "many": many, "rates": rates}.items():
            (folder / f"{name}.yaml").write_text(sweep)
            cls.pages[name] = folder / f"{name}.html"
            trainyard("sweep", folder / f"{name}.yaml", "--report", cls.pages[name])

    @classmethod
    def tearDownClass(cls):
        cls.browser.quit()
        cls.folder.cleanup()

    def open(self, name):
        self.browser.driver.get("about:blank")  # so that the address of another test does not stay
        self.browser.requests()
        self.browser.open(self.pages[name])
        self.addCleanup(self.expect_quiet, self.pages[name])
        return self.browser

    def expect_quiet(self, page):
        self.assertEqual(self.browser.errors(), [])
        self.assertEqual(set(self.browser.requests()), {page.as_uri()})

    def choose(self, selector, text):
        self.browser.find(f"{selector} option[value='{text}']").click()

    def lines(self, section):
        return self.browser.chart(section, "chart.data.datasets.map(({label}) => label)")

    def row_texts(self, section):
        return [[cell.text for cell in row.find_elements("css selector", "td")] for row in self.browser.find_all(f"#{section} tbody tr")]

    def is_open(self):
        return self.browser.script("return document.getElementById('point').open")

    def wait_open(self, title):
        self.browser.wait(lambda: self.is_open() and title in self.browser.find("#point-title").text, f"the details of {title}")

    def click_point(self, section, line, index):
        at = self.browser.chart(section, f"(({{x, y}}) => ({{x, y}}))(chart.getDatasetMeta({line}).data[{index}])")
        self.browser.move_to(f"#{section} canvas", at["x"], at["y"], click=True)

    def changed(self, name, change):
        """The page `name` with other data in it."""
        before, data, after = re.split(r'(?<=type="application/json">)(.*?)(?=</script>)', self.pages["few"].read_text(), maxsplit=1, flags=re.DOTALL)
        data = json.loads(data)
        change(data)
        self.pages[name] = pathlib.Path(self.folder.name) / f"{name}.html"
        self.pages[name].write_text(before + json.dumps(data).replace("<", "\\u003c") + after)
        return name

    def test_counts_the_points_and_names_where_they_are_from(self):
        view = self.open("few")
        self.assertEqual([figure.text.split("\n") for figure in view.find_all("#summary .figure")],
                         [["points", "16", "in 4 series"], ["simulated", "12", "4 do not fit in memory"], ["not possible", "4", "for reasons below"]])
        self.assertRegex(view.find("#summary p").text, r"^Results from few\.db, simulated by Trainyard \d")
        view.screenshot("sweep-few-1400.png")

    def test_draws_the_metric_that_is_chosen(self):
        view = self.open("few")
        self.assertEqual(self.lines("curves"), ["FSDP", "DDP", attack])
        self.assertEqual(view.chart("curves", "chart.options.scales.y.title.text"), "step time")
        self.choose("#metric", "scaling_loss")
        self.assertEqual(view.chart("curves", "chart.options.scales.y.title.text"), "scaling loss")
        self.assertEqual(view.chart("curves", "chart.data.datasets[0].data.map(({x}) => x)"), [8, 16, 32, 64])
        self.assertEqual(view.chart("curves", "chart.data.datasets[0].data[0].y"), 0)
        self.choose("#metric", "memory.peak_bytes")
        self.assertEqual(self.lines("curves")[-1], "capacity")

    def test_draws_costs_where_results_have_them(self):
        def add_costs(data):
            data["fields"] += ["cost.currency", "cost.per_step"]
            for place, point in enumerate(data["points"]):
                if point["status"] == "ok":
                    missing = len(data["fields"]) - 2 - len(point["values"])
                    point["values"] += [None] * missing + ["EUR", 10 + place]

        view = self.open(self.changed("costs", add_costs))
        self.choose("#metric", "cost.per_step")
        self.assertEqual(view.chart("curves", "chart.options.scales.y.title.text"), "cost per step in EUR")
        self.assertEqual(view.chart("curves", "chart.data.datasets[0].data.map(({y}) => y)"), [10, 14, 18, 22])

    def test_opens_before_anything_is_simulated(self):
        def forget(data):
            for point in data["points"]:
                for part in set(point) - {"series", "parameters"}:
                    del point[part]
                point["status"] = "missing"

        view = self.open(self.changed("nothing", forget))
        self.assertIn("run the sweep again", view.find("#summary").text)
        self.assertEqual({row[1] for row in self.row_texts("points")}, {"missing"})

    def test_switches_between_linear_and_logarithmic_axes(self):
        view = self.open("few")
        types = lambda: view.chart("curves", "[chart.scales.x.type, chart.scales.y.type]")
        self.assertEqual(types(), ["logarithmic", "linear"])
        view.find("#log-x").click()
        view.find("#log-y").click()
        self.assertEqual(types(), ["linear", "logarithmic"])
        self.choose("#metric", "scaling_loss")  # the loss of a baseline is zero
        self.assertFalse(view.find("#log-y").is_enabled())

    def test_marks_what_does_not_fit_in_memory(self):
        view = self.open("few")
        self.assertEqual(view.chart("curves", "chart.data.datasets.map(({pointStyle}) => pointStyle[0])"), ["circle", "rectRot", "circle"])
        self.assertIn("do not fit in memory (4 of 12 points shown)", view.find("#curves-note").text)

    def test_hides_a_series_that_is_switched_off_in_the_legend(self):
        view = self.open("few")
        view.find("#legend label:nth-child(2)").click()
        self.assertEqual(self.lines("curves"), ["FSDP", attack])
        self.assertEqual(self.lines("scaling"), ["FSDP", attack, "fit of FSDP"])
        view.find("#legend label:nth-child(2)").click()
        self.assertEqual(self.lines("curves"), ["FSDP", "DDP", attack])

    def test_tells_in_a_tooltip_what_is_under_the_pointer(self):
        view = self.open("few")
        at = view.chart("curves", "(({x, y}) => ({x, y}))(chart.getDatasetMeta(1).data[2])")
        view.move_to("#curves canvas", at["x"], at["y"])
        view.wait(lambda: view.chart("curves", "chart.tooltip.opacity") == 1, "a tooltip")
        self.assertEqual(view.chart("curves", "chart.tooltip.title"), ["32 devices"])
        self.assertEqual(view.chart("curves", "chart.tooltip.body[0].lines"), ["DDP"])
        self.assertRegex(" ".join(view.chart("curves", "chart.tooltip.body[0].after")), r"^step time: \S+ s MFU: \S+ % memory: .* which does not fit in 79.1 GiB$")

    def test_opens_the_point_that_is_clicked_and_finds_it_again(self):
        view = self.open("few")
        self.click_point("curves", 0, 3)
        self.wait_open("FSDP, 64 devices")
        self.assertIn("nodes: 8\n", view.find("#scenario").text)
        self.assertTrue(view.script("return location.hash") == "#point-13")
        view.button("#point", "‹ fewer devices").click()
        self.wait_open("FSDP, 32 devices")
        view.driver.refresh()
        self.wait_open("FSDP, 32 devices")
        view.find("#close").click()
        view.wait(lambda: not self.is_open(), "the details are closed")
        self.assertEqual(view.script("return location.hash"), "")

    def test_copies_the_scenario_or_selects_it(self):
        view = self.open("few")
        self.click_point("curves", 0, 0)
        self.wait_open("FSDP, 8 devices")
        view.find("#copy").click()
        view.wait(lambda: view.find("#copy").text != "copy", "an answer")
        if view.find("#copy").text != "copied":
            self.assertIn("strategy:\n  framework: pytorch-fsdp", view.script("return getSelection().toString()"))

    def test_sorts_and_filters_the_points(self):
        view = self.open("few")
        view.button("#points thead", "step time").click()
        times = view.script("return sweep_points.simulated.map((point) => point.value('step_time_s')).sort((a, b) => b - a)")
        slowest = view.script("return sweep_points.points.find((point) => point.value('step_time_s') === arguments[0]).position + 1", times[0])
        self.assertEqual(self.row_texts("points")[0][0], str(slowest))
        view.find("#points [aria-label='filter status']").send_keys("not fit")
        self.assertEqual({row[1] for row in self.row_texts("points")}, {"does not fit"})
        view.find("#points [aria-label='filter nodes']").send_keys(">= 4")
        self.assertEqual({row[2] for row in self.row_texts("points")}, {"4", "8"})
        view.find("#points [aria-label='filter rows']").send_keys("ddp 32")
        self.assertEqual(len(self.row_texts("points")), 1)

    def test_opens_the_point_of_a_row(self):
        view = self.open("few")
        view.find("#points tbody tr:nth-child(3)").click()
        self.wait_open(attack)
        self.assertIn("tensor: 8", view.find("#scenario").text)
        self.assertIn("</script>", view.find("#scenario").text)

    def test_says_why_points_are_not_possible(self):
        view = self.open("few")
        [row] = self.row_texts("impossible")
        self.assertRegex(row[0], r"^strategy.tensor: 5 does not divide the attention heads")
        self.assertEqual(row[1], "4")
        view.find("#impossible tbody tr").click()
        self.wait_open("Five")
        self.assertIn("does not divide", view.find("#diagnostics").text)
        self.assertIn("tensor: 5", view.find("#scenario").text)

    def test_shows_where_the_series_that_is_clicked_loses(self):
        view = self.open("few")
        self.assertEqual(self.row_texts("scaling")[0][:2], ["FSDP", "weak"])
        view.find("#scaling tbody tr:nth-child(3)").click()
        self.assertIn("waiting for tensor", self.lines("breakdown"))
        self.assertIn("more device time with every doubling", view.find("#fit").text)
        self.assertIn("fit of " + attack, self.lines("scaling"))
        causes = view.chart("breakdown", "chart.data.datasets.map(({data}) => data[3]).reduce((a, b) => a + b)", index=1)
        loss = view.script("return sweep_points.points[14].value('scaling_loss')")
        self.assertAlmostEqual(causes, loss, places=3)
        view.button("#breakdown", "share").click()
        self.assertAlmostEqual(view.chart("breakdown", "chart.data.datasets.map(({data}) => data[0]).reduce((a, b) => a + b)"), 1, places=3)

    def test_shows_a_hostile_name_as_the_text_it_is(self):
        view = self.open("few")
        self.assertEqual(view.driver.title, "few – Trainyard")
        self.assertEqual(view.find("#legend label:nth-child(3)").text, attack)
        self.assertEqual(view.find_all("main b"), [])

    def test_begins_with_the_best_of_many_series(self):
        view = self.open("many")
        self.assertEqual(len(self.lines("curves")), 8)
        self.assertIn("8 of 40 series shown", view.find("#curves").text)
        view.screenshot("sweep-many-1400.png")
        view.find("#series-search").send_keys("ddp 4096")
        self.assertEqual(len(view.find_all("#legend label")), 2)
        view.find("#show-none").click()
        view.find("#legend label").click()
        self.assertEqual(self.lines("curves"), ["pytorch-ddp, recompute none, sequence 4096"])
        view.find("#series-search").clear()
        view.find("#series-search").send_keys(" ")
        view.find("#show-all").click()
        self.assertEqual(len(self.lines("curves")), 40)
        view.screenshot("sweep-all-1400.png")

    def test_keeps_the_series_that_a_filter_leaves(self):
        self.open("many")
        self.choose("[data-path='training.recompute']", '"full"')
        self.choose("[data-path='strategy.framework']", '"deepspeed"')
        self.assertEqual(len(self.lines("curves")), 5)

    def test_joins_points_along_the_parameter_that_is_chosen(self):
        view = self.open("many")
        self.choose("#x-axis", "training.sequence")
        self.choose("[data-path='cluster.nodes']", "2")
        self.choose("[data-path='training.recompute']", '"none"')
        self.assertEqual(len(self.lines("curves")), 4)
        self.assertEqual(view.chart("curves", "chart.data.datasets[0].data.map(({x}) => x)"), [512, 1024, 2048, 4096, 8192])

    def test_draws_over_a_quantity_with_its_unit(self):
        view = self.open("rates")
        self.choose("#x-axis", "cluster.node.nic_rate")
        self.assertEqual(self.lines("curves"), ["nodes 2", "nodes 4"])
        self.assertEqual(view.chart("curves", "chart.data.datasets[0].data.map(({x}) => x)"), [200, 400, 1600])
        self.assertEqual(view.chart("curves", "chart.options.scales.x.title.text"), "cluster.node.nic_rate in Gbit/s")

    def test_draws_again_in_dark_colours(self):
        view = self.open("few")
        light = view.script("return Chart.defaults.color")
        view.prefer("dark")
        view.wait(lambda: view.script("return Chart.defaults.color") != light, "other colours")
        view.screenshot("sweep-few-dark-1400.png")
        view.prefer("light")

    def test_fits_a_narrow_window(self):
        narrow = Browser(width=500)
        try:
            for name in ("few", "many"):
                narrow.open(self.pages[name])
                self.assertLessEqual(narrow.script("return document.documentElement.scrollWidth"), 500)
                narrow.screenshot(f"sweep-{name}-500.png")
        finally:
            narrow.quit()


if __name__ == "__main__":
    print(f"screenshots: {browser.folder}")
    unittest.main()
