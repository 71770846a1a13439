// The report of `trainyard run`.
"use strict";

(() => {
  const {data, format, section, figures} = trainyard;

  const result = data.result;
  const summary = section("summary", "Summary");
  figures(summary, [
    {name: "step time", value: format.seconds(result.step_time_s)},
    {name: "MFU", value: format.percent(result.mfu), more: format.number(result.model_tflops_per_device) + " TFLOP/s per device"},
  ]);
})();
