// One timeline for each anomaly: processes below each other, a bar for each operation.
//
// Time runs to the right, but not to scale: operations take microseconds and may lie seconds apart.
// Every beginning and end has its place in the order of the history, as far apart as labels need.
"use strict";

(() => {
  const { data, dark, outcomes, ink, tip, duration, seconds } = report;
  const ROW = 30;
  const BAR = 20;
  const GAP = 16;
  const SIDE = { left: 100, right: 30 };
  const measure = (text) => echarts.format.getTextRect(text, "12px " + report.font).width;

  // Where each operation begins and ends, in pixels, and where a moment lies among them.
  function order(bars) {
    const marks = [];
    bars.forEach((bar, at) => {
      marks.push({ position: bar.begin_at, time: bar.begin, at, begins: true });
      if (bar.end_at != null) marks.push({ position: bar.end_at, time: bar.end, at, begins: false });
    });
    marks.sort((a, b) => a.position - b.position);
    const places = bars.map(() => ({ from: 0, to: null }));
    let x = 0;
    for (const mark of marks) {
      x += GAP;
      if (mark.begins) places[mark.at].from = x;
      else {
        x = Math.max(x, places[mark.at].from + measure(bars[mark.at].label) + 16);
        places[mark.at].to = x;
      }
      mark.x = x;
    }
    const open = bars.filter((bar) => bar.end_at == null).map((bar) => measure(bar.label) + 16);
    const width = x + Math.max(GAP, ...open);
    const where = (time) => {
      const next = marks.findIndex((mark) => mark.time >= time);
      if (next < 0) return width;
      if (next === 0) return marks[0].time === time ? marks[0].x : 0;
      const [a, b] = [marks[next - 1], marks[next]];
      return a.x + ((b.x - a.x) * (time - a.time)) / Math.max(b.time - a.time, 1);
    };
    const when = (place) => {
      const next = marks.findIndex((mark) => mark.x >= place);
      if (next < 0) return marks[marks.length - 1].time;
      if (next === 0) return marks[0].time;
      const [a, b] = [marks[next - 1], marks[next]];
      return a.time + ((b.time - a.time) * (place - a.x)) / Math.max(b.x - a.x, 1);
    };
    return { places, width, where, when };
  }

  function barTip(bar) {
    const how = bar.end == null ? "no end" : outcomes[bar.outcome].name;
    return tip(`${bar.label}: ${how}`, [
      `process ${bar.process}, asked ${bar.node || "–"}`,
      `began at ${seconds(bar.begin, 6)}`,
      bar.end == null ? "" : `took ${duration(bar.end - bar.begin)}`,
      bar.version == null ? "" : `version ${bar.version}`,
      bar.error || "",
    ]);
  }

  function colour(bar) {
    const { read, other } = outcomes[bar.outcome];
    return /read/.test(bar.label) ? read : other;
  }

  function renderBar(bars, layout, params, api) {
    const bar = bars[api.value(3)];
    const [from, y] = api.coord([api.value(0), api.value(2)]);
    const to = api.coord([api.value(1), 0])[0];
    const right = params.coordSys.x + params.coordSys.width;
    const children = [{
      type: "rect",
      shape: { x: from, y: y - BAR / 2, width: Math.max(to - from, 3), height: BAR, r: 3 },
      style: {
        fill: colour(bar), opacity: bar.hit ? 1 : 0.55,
        stroke: bar.hit ? ink().text : "transparent", lineWidth: 2,
      },
    }, {
      type: "text",
      style: {
        text: bar.label, x: from + 7, y, verticalAlign: "middle", fill: bar.hit ? "#ffffff" : ink().text,
        font: `${bar.hit ? "600 " : ""}12px ${report.font}`,
        textShadowColor: bar.hit ? "rgba(0,0,0,.65)" : "transparent", textShadowBlur: bar.hit ? 3 : 0,
      },
      silent: true,
    }];
    if (bar.outcome === "info") {
      children.push({
        type: "line", shape: { x1: to + 2, y1: y, x2: right, y2: y },
        style: { stroke: colour(bar), lineWidth: 1.5, lineDash: [4, 4], opacity: 0.8 }, silent: true,
      });
    }
    return { type: "group", children };
  }

  function renderFault(faults, params, api) {
    const fault = faults[api.value(3)];
    const [from, y] = api.coord([api.value(0), api.value(2)]);
    const width = Math.max(api.coord([api.value(1), 0])[0] - from, 4);
    const fill = report.kindColour(fault.kind);
    const area = { x: from, y: params.coordSys.y, width, height: params.coordSys.height };
    const bar = { x: from, y: y - BAR / 2, width, height: BAR, r: 3 };
    const skipped = fault.hold === "skipped";
    return {
      type: "group",
      children: [
        { type: "rect", shape: area, silent: true, style: { fill, opacity: skipped ? 0 : 0.1 } },
        {
          type: "rect", shape: bar, style: { fill: skipped ? "transparent" : fill, stroke: fill },
        },
        {
          type: "text", silent: true,
          style: {
            text: fault.what, x: from + 7, y, verticalAlign: "middle", fill: ink().text,
            font: `12px ${report.font}`, width: Math.max(width - 12, 0), overflow: "truncate", opacity: width > 40 ? 1 : 0,
          },
        },
      ],
    };
  }

  function draw(place) {
    const { bars, faults } = data.around[Number(place.dataset.around)];
    if (!bars.length) {
      place.parentElement.hidden = true;
      return null;
    }
    const layout = order(bars);
    const processes = [...new Set(bars.map((bar) => bar.process))];
    const kinds = [...new Set(faults.map((fault) => fault.kind))];
    const rows = [...kinds, ...processes.map((process) => `process ${process}`)];
    const room = place.parentElement.clientWidth - SIDE.left - SIDE.right;
    const width = Math.max(layout.width, room);
    const scale = width / layout.width;
    place.style.width = `${width + SIDE.left + SIDE.right}px`;
    place.style.height = `${rows.length * ROW + 52}px`;
    const chart = echarts.init(place);
    const { text, quiet, line } = ink();
    const custom = (values, render, tips, z) => ({
      type: "custom", data: values, encode: { x: [0, 1], y: 2 }, z, clip: true,
      renderItem: render, tooltip: { formatter: ({ value }) => tips(value[3]) },
    });
    chart.setOption({
      animation: false, backgroundColor: "transparent", textStyle: { fontFamily: report.font },
      tooltip: { ...report.tooltip(), trigger: "item" },
      grid: { ...SIDE, top: 8, height: rows.length * ROW },
      xAxis: {
        type: "value", min: 0, max: width, interval: Math.max(width / Math.floor(width / 130), 1),
        axisLine: { onZero: false, lineStyle: { color: line } }, splitLine: { show: false },
        axisTick: { lineStyle: { color: line } },
        axisLabel: {
          color: quiet, fontSize: 11, showMaxLabel: false,
          formatter: (place) => seconds(layout.when(place / scale), 4),
        },
      },
      yAxis: {
        type: "category", data: rows, inverse: true, axisTick: { show: false },
        axisLine: { show: false }, splitLine: { show: true, lineStyle: { color: line } },
        axisLabel: { color: text, fontSize: 12, interval: 0, width: SIDE.left - 14, overflow: "truncate" },
      },
      series: [
        custom(
          faults.map((fault, at) => [
            layout.where(fault.from) * scale, layout.where(fault.to) * scale, kinds.indexOf(fault.kind), at,
          ]),
          (params, api) => renderFault(faults, params, api), (at) => report.faultTip(faults[at]), 1),
        custom(
          bars.map((bar, at) => {
            const { from, to } = layout.places[at];
            return [
              from * scale, (to == null ? layout.width : to) * scale,
              kinds.length + processes.indexOf(bar.process), at,
            ];
          }),
          (params, api) => renderBar(bars, layout, params, api), (at) => barTip(bars[at]), 3),
      ],
    });
    return chart;
  }

  function legend(place) {
    place.replaceChildren();
    for (const { name, read, other } of Object.values(outcomes)) {
      for (const [what, fill] of [["read", read], ["write", other]]) {
        const swatch = document.createElement("i");
        swatch.className = "swatch";
        swatch.style.background = fill;
        const entry = document.createElement("span");
        entry.append(swatch, `${name} ${what}`);
        place.append(entry);
      }
    }
  }

  let charts = [];
  const all = () => {
    for (const chart of charts) chart.dispose();
    charts = [...document.querySelectorAll("[data-around]")].map(draw).filter((chart) => chart);
  };
  document.querySelectorAll("[data-legend]").forEach(legend);
  all();
  dark.addEventListener("change", all);
  let pending = 0;
  window.addEventListener("resize", () => {
    clearTimeout(pending);
    pending = setTimeout(all, 150);
  });
})();
