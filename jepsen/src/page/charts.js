// The charts over the whole run. Texts of the run reach the page as canvas text or by
// `textContent` only: never as HTML.
"use strict";

const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const outcomes = {
    ok: { name: "ok", read: "#56a9de", other: "#0b63b5" },
    fail: { name: "failed", read: "#e9a23b", other: "#d1480f" },
    info: { name: "unknown", read: "#d884b4", other: "#9b3fb0" },
  };
  const kinds = {
    kill: "#cc5a68", pause: "#c9a227", partition: "#3aa394", slow: "#7cb6dd",
    coordinator: "#8273d6", restart: "#4f9a56", wipe: "#b4558f", corrupt: "#98942f", clock: "#9a7b6a",
  };
  const actions = {
    read: "#8cc3ea", write: "#2f7fca", cas: "#2a9d8f", delete: "#7a8794", append: "#5b8e3e", transfer: "#b0722e",
    "lease-read": "#b6d7a8", "stale-read": "#c3b1e1", "final-read": "#c9ced4", "write-both": "#6a51a3",
    "watch-begin": "#e3c878", "watch-resume": "#d9a441", watch: "#f0dfae", "watch-end": "#e3c878",
  };
  const ink = () => dark.matches
    ? { text: "#e6eaee", quiet: "#98a4b1", line: "#333c46", ground: "#1d232a", median: "#ffffff" }
    : { text: "#1b2128", quiet: "#5b6673", line: "#dde1e6", ground: "#ffffff", median: "#1b2128" };

  // A tooltip: a heading and lines below it, as text.
  const tip = (heading, lines) => {
    const box = document.createElement("div");
    box.className = "tip";
    const head = document.createElement("b");
    head.textContent = heading;
    box.append(head);
    for (const line of lines.filter((line) => line)) {
      const row = document.createElement("div");
      row.textContent = line;
      box.append(row);
    }
    return box;
  };
  const tooltip = () => ({
    confine: true, backgroundColor: ink().ground, borderColor: ink().line,
    textStyle: { color: ink().text, fontSize: 12 },
  });
  const duration = (us) => {
    if (us < 1000) return `${us} µs`;
    if (us < 1e6) return `${(us / 1000).toFixed(us < 1e5 ? 1 : 0)} ms`;
    return `${(us / 1e6).toFixed(2)} s`;
  };
  const seconds = (us, digits = 3) => `${(us / 1e6).toFixed(digits)} s`;
  const kindColour = (kind) => kinds[kind] || "#8a8f98";
  const faultTip = (fault) => tip(`${fault.kind}: ${fault.hold}`, [
    fault.what,
    fault.to > fault.from
      ? `${seconds(fault.from)} to ${seconds(fault.to)} (${duration(fault.to - fault.from)})`
      : `at ${seconds(fault.from)}`,
    fault.failover_ms == null ? "" : `next leader after ${fault.failover_ms} ms`,
  ]);
  const font = getComputedStyle(document.body).fontFamily;
  return {
    data, dark, outcomes, actions, ink, tip, tooltip, duration, seconds, kindColour, faultTip, font,
  };
})();

(() => {
  const { data, dark, outcomes, actions, ink, tip, duration, seconds } = report;
  const kinds = [...new Set(data.faults.map((fault) => fault.kind))];
  const LANE = 22;
  const lanes = kinds.length * LANE;
  const top = { faults: 30, latency: lanes + 100, rate: lanes + 100 + 340 + 92 };
  const side = { left: 86, right: 22 };
  const end = Math.max(data.end, 1000) / 1e6;
  const step = data.rates.step_ms / 1000;

  function scatter(series) {
    const outcome = outcomes[series.outcome];
    let time = 0;
    const points = series.times.map((delta, at) => {
      time += delta;
      return [time / 1e4, Math.max(series.latencies[at], 10) / 1000, at];
    });
    const text = (number) => (number == null ? "" : data.points.texts[number]);
    return {
      name: `${outcome.name} ${series.read ? "read" : "write"}`, type: "scatter", data: points,
      xAxisIndex: 1, yAxisIndex: 1, large: series.outcome === "ok", largeThreshold: 4000,
      symbol: series.read ? "circle" : "diamond", z: series.outcome === "ok" ? 3 : 5,
      symbolSize: series.outcome === "ok" ? 3.5 : series.read ? 4.5 : 6,
      itemStyle: {
        color: series.read ? outcome.read : outcome.other, opacity: series.outcome === "ok" ? 0.6 : 0.9,
      },
      tooltip: {
        formatter: ({ value: [time, , at] }) => tip(
          `${text(series.actions[at])} ${series.values[at] || "?"}: ${outcome.name}`,
          [
            `key ${text(series.keys[at])}`,
            `process ${series.processes[at]}, asked ${text(series.nodes[at]) || "–"}`,
            `began at ${time.toFixed(4)} s, took ${duration(series.latencies[at])}`,
            text(series.errors[at]),
          ],
        ),
      },
    };
  }

  const middle = (at) => Math.min((at + 0.5) * step, end);
  const line = (name, values, colour, more) => ({
    name, type: "line", symbol: "none", data: values.map((value, at) => [middle(at), value]),
    lineStyle: { width: 1.6, color: colour }, itemStyle: { color: colour },
    emphasis: { disabled: true }, ...more,
  });
  const quantile = (name, values, more) =>
    line(name, values.map((us) => (us == null ? null : Math.max(us, 10) / 1000)), ink().median,
      { xAxisIndex: 1, yAxisIndex: 1, z: 6, silent: true, tooltip: { show: false }, ...more });

  function rates() {
    const second = (values) => values.map((count) => count / step);
    const rate = { xAxisIndex: 2, yAxisIndex: 2 };
    const ok = Object.entries(data.rates.ok).map(([name, values]) =>
      line(`${name}/s`, second(values), actions[name], {
        ...rate, stack: "ok", lineStyle: { width: 0 },
        areaStyle: { color: actions[name], opacity: 0.85 }, z: 2,
      }));
    const other = [["fail", "failed/s"], ["info", "unknown/s"]].map(([stage, name]) =>
      line(name, second(data.rates[stage]), outcomes[stage].other, { ...rate, z: 4 }));
    return [...ok, ...other];
  }

  // Bands behind a chart, on a series of their own that no legend hides.
  function bands(index) {
    const least = end / 600;
    const areas = data.faults.filter((fault) => fault.hold !== "skipped").map((fault) => [
      {
        xAxis: fault.from / 1e6,
        itemStyle: {
          color: report.kindColour(fault.kind),
          opacity: (fault.hold === "installed" ? 1 : 0.5) * (dark.matches ? 0.22 : 0.16),
        },
      },
      { xAxis: Math.max(fault.to / 1e6, fault.from / 1e6 + least) },
    ]);
    const healed = data.attack_end < data.end ? [{ xAxis: data.attack_end / 1e6 }] : [];
    return {
      name: "", type: "line", data: [], xAxisIndex: index, yAxisIndex: index, silent: true, z: 1,
      tooltip: { show: false },
      markArea: { silent: true, data: areas },
      markLine: {
        silent: true, symbol: "none", data: healed, lineStyle: { color: ink().quiet, type: "dashed" },
        label: { show: index === 1, formatter: "attack ends", color: ink().quiet, position: "insideEndTop", fontSize: 11 },
      },
    };
  }

  const faults = () => ({
    type: "custom", xAxisIndex: 0, yAxisIndex: 0, clip: true,
    data: data.faults.map((fault, at) => [
      fault.from / 1e6, Math.max(fault.to, fault.from) / 1e6, kinds.indexOf(fault.kind), at,
    ]),
    encode: { x: [0, 1], y: 2 },
    tooltip: { formatter: ({ value }) => report.faultTip(data.faults[value[3]]) },
    renderItem: (params, api) => {
      const fault = data.faults[api.value(3)];
      const [from, y] = api.coord([api.value(0), api.value(2)]);
      const width = Math.max(api.coord([api.value(1), 0])[0] - from, 4);
      const colour = report.kindColour(fault.kind);
      const shape = echarts.graphic.clipRectByRect(
        { x: from, y: y - 6, width, height: 12 }, params.coordSys);
      const skipped = fault.hold === "skipped";
      return shape && {
        type: "rect", shape: { ...shape, r: 2 },
        style: {
          fill: skipped ? "transparent" : colour, stroke: colour, lineWidth: 1,
          opacity: fault.hold === "indeterminate" ? 0.5 : 1,
        },
      };
    },
  });

  // What happened in the step around a time, in seconds.
  function moment(time) {
    const at = Math.min(Math.floor(time / step), data.rates.fail.length - 1);
    const rate = (values) => (values[at] / step).toFixed(0);
    const took = (us) => (us == null ? "–" : duration(us));
    const now = data.faults.filter(({ from, to }) => from <= time * 1e6 && time * 1e6 <= to);
    return tip(`${(at * step).toFixed(1)} to ${((at + 1) * step).toFixed(1)} s`, [
      ...Object.entries(data.rates.ok).map(([name, values]) => `${name}: ${rate(values)}/s`),
      `failed: ${rate(data.rates.fail)}/s, unknown: ${rate(data.rates.info)}/s`,
      `median ${took(data.rates.p50[at])}, 99 % ${took(data.rates.p99[at])}`,
      ...now.map(({ kind, what }) => `${kind}: ${what}`),
    ]);
  }

  function axes() {
    const { quiet, line: rule } = ink();
    const label = { color: quiet, fontSize: 11 };
    const ruled = { lineStyle: { color: rule } };
    const x = (gridIndex, shown) => ({
      gridIndex, type: "value", min: 0, max: end, axisLine: { onZero: false, ...ruled }, axisTick: ruled,
      splitLine: { show: false },
      axisLabel: { ...label, show: shown, showMaxLabel: Number.isInteger(end), formatter: (value) => `${+value.toFixed(3)} s` },
      axisPointer: { show: true, label: { show: shown, formatter: ({ value }) => `${value.toFixed(3)} s` } },
    });
    return {
      xAxis: [x(0, false), x(1, true), x(2, true)],
      yAxis: [
        {
          gridIndex: 0, type: "category", data: kinds, inverse: true, axisTick: { show: false },
          axisLine: { show: false }, axisLabel: { ...label, color: ink().text },
          splitLine: { show: true, ...ruled },
        },
        {
          gridIndex: 1, type: "log", axisLine: { show: false }, splitLine: ruled,
          axisLabel: { ...label, formatter: (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`) },
        },
        { gridIndex: 2, type: "value", min: 0, axisLine: { show: false }, splitLine: ruled, axisLabel: label },
      ],
    };
  }

  function option() {
    const { text, quiet } = ink();
    const points = data.points.series.map(scatter);
    const lines = [quantile("median", data.rates.p50), quantile("99 %", data.rates.p99,
      { lineStyle: { width: 1.2, type: [4, 3], color: ink().median } })];
    const rate = rates();
    const title = (label, at) => ({
      text: label, left: 8, top: at, textStyle: { color: text, fontSize: 13, fontWeight: 600 },
    });
    const icon = ({ type, symbol, xAxisIndex, lineStyle }) => {
      if (type === "scatter") return symbol;
      if (xAxisIndex === 2) return "roundRect";
      return lineStyle.type ? "path://M0 4h6v2H0zM10 4h6v2h-6z" : "path://M0 4h16v2H0z";
    };
    const legend = (series, at) => ({
      data: series.map((one) => ({ name: one.name, icon: icon(one) })), left: side.left + 84, right: side.right, top: at, type: "scroll",
      textStyle: { color: text, fontSize: 12 }, inactiveColor: quiet, itemWidth: 11, itemHeight: 10,
      pageTextStyle: { color: quiet }, selected: { "final-read/s": false },
    });
    const heights = { latency: 340, rate: 190 };
    return {
      animation: false, backgroundColor: "transparent", textStyle: { fontFamily: report.font },
      title: [title(kinds.length ? "Faults" : "", 4), title("Latency", top.latency - 34),
        title("Operations per second", top.rate - 34)],
      legend: [legend([...points, ...lines], top.latency - 34),
        { ...legend(rate, top.rate - 34), left: side.left + 150 }],
      grid: [
        { ...side, top: top.faults, height: lanes },
        { ...side, top: top.latency, height: heights.latency },
        { ...side, top: top.rate, height: heights.rate, tooltip: { trigger: "axis" } },
      ],
      ...axes(),
      // Not the third: its tooltip, of a moment, would hide that of a point.
      axisPointer: { link: [{ xAxisIndex: [0, 1] }], lineStyle: { color: quiet } },
      tooltip: {
        ...report.tooltip(), trigger: "item",
        formatter: (all) => (Array.isArray(all) ? moment(all[0].axisValue) : ""),
      },
      dataZoom: [
        {
          type: "slider", xAxisIndex: [0, 1, 2], filterMode: "none", bottom: 10, height: 22, ...side,
          showDataShadow: false, borderColor: ink().line, textStyle: { color: quiet },
          labelFormatter: (value) => `${value.toFixed(2)} s`,
        },
        { type: "inside", xAxisIndex: [0, 1, 2], filterMode: "none", zoomOnMouseWheel: "ctrl" },
      ],
      series: [faults(), bands(1), bands(2), ...points, ...lines, ...rate],
    };
  }

  const place = document.getElementById("overview");
  place.style.height = `${top.rate + 190 + 76}px`;
  let chart = null;
  const draw = () => {
    if (chart) chart.dispose();
    chart = echarts.init(place);
    chart.setOption(option());
  };
  draw();
  dark.addEventListener("change", draw);
  window.addEventListener("resize", () => chart.resize());

  for (const cell of document.querySelectorAll("th[data-kind]")) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = report.kindColour(cell.dataset.kind);
    cell.prepend(swatch);
  }
})();
