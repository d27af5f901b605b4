// One quantity at a time: means with their bands, single seeds on demand, zoomed along the horizontal axis.
function curves(data) {
  const box = $("curves"), buttons = [...$("curves-legend").querySelectorAll("button[data-label]")];
  const state = {quantity: 0, along: data.along[0].name, log: data.quantities[0].log, seeds: false, window: null, at: -1};
  const shown = new Set(data.shown);
  const color = i => css(`--series-${i % 7}`);
  const dash = i => { const d = buttons[i].querySelector("line").getAttribute("stroke-dasharray"); return d === "none" ? "solid" : d.split(" ").map(Number); };
  const x = of => of.along[state.along], y = of => of.values[state.quantity];
  const visible = () => [...shown].sort((a, b) => a - b).filter(i => x(data.means[i]).length || data.runs.some(run => run.label === i));
  const runs = i => data.runs.filter(run => run.label === i && (state.seeds || run.broken));
  const span = () => {
    const all = visible().flatMap(i => [...x(data.means[i]), ...runs(i).flatMap(x)]).filter(v => v !== null);
    return all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  };
  const positive = () => visible().every(i => y(data.means[i]).mean.every(v => v === null || v > 0));
  const log = () => state.log && positive();

  // The vertical axis fits what is in the window: the means whole, of the bands a quarter of their height more.
  function limits() {
    const [from, to] = state.window ?? span(), up = log() ? Math.log10 : v => v, down = log() ? v => 10 ** v : v => v;
    const inside = (xs, ys) => ys.filter((v, k) => v !== null && xs[k] >= from && xs[k] <= to && (!log() || v > 0)).map(up);
    const means = visible().flatMap(i => inside(x(data.means[i]), y(data.means[i]).mean));
    const seeds = state.seeds ? visible().flatMap(i => runs(i).flatMap(run => inside(x(run), y(run)))) : [];
    if (!means.length && !seeds.length) return [null, null];
    const low = Math.min(...means, ...seeds), high = Math.max(...means, ...seeds), room = (high - low) / 4 || Math.abs(high) / 50 || 1;
    const bands = visible().flatMap(i => ["low", "high"].flatMap(side => inside(x(data.means[i]), y(data.means[i])[side])));
    const edge = room / 5;
    const bottom = clamp(Math.min(...bands, low - edge), low - room, low - edge), top = clamp(Math.max(...bands, high + edge), high + edge, high + room);
    return [down(bottom), Math.min(down(top), data.quantities[state.quantity].ceiling ?? Infinity)];
  }

  function band(i) {
    const xs = x(data.means[i]), {low, high} = y(data.means[i]);
    const there = [...xs.keys()].filter(k => low[k] !== null && (!log() || low[k] > 0));
    return {
      type: "custom", id: `band${i}`, silent: true, clip: true, z: 1, tooltip: {show: false}, data: there.length ? [[xs[there[0]], low[there[0]]]] : [],
      renderItem: (_, api) => ({
        type: "polygon",
        shape: {points: [...there.map(k => api.coord([xs[k], high[k]])), ...there.reverse().map(k => api.coord([xs[k], low[k]]))]},
        style: {fill: color(i), opacity: 0.13},
      }),
    };
  }
  const points = of => x(of).map((v, k) => [v, (of.along ? y(of).mean ?? y(of) : 0)[k]]).filter(p => !log() || p[1] === null || p[1] > 0);
  function line(i) {
    const data_ = points(data.means[i]);
    return {
      type: "line", id: `mean${i}`, name: data.labels[i], data: data_, showSymbol: data_.length === 1, symbol: "circle", symbolSize: 6, z: 3,
      color: color(i), lineStyle: {width: 2, type: dash(i)}, emphasis: {disabled: true}, clip: true,
    };
  }
  function single(run) {
    const data_ = points(run).filter(p => p[1] !== null);
    if (run.broken && data_.length) data_[data_.length - 1] = {value: data_.at(-1), symbol: "path://M0 0L10 10M10 0L0 10", symbolSize: 8, itemStyle: {borderColor: color(run.label), borderWidth: 1.5}};
    return {
      type: "line", id: `run${run.run}`, data: data_, showSymbol: run.broken, symbol: run.broken ? "none" : "circle", symbolSize: 4, z: 2, silent: true,
      color: color(run.label), lineStyle: {width: 0.9, opacity: 0.7}, emphasis: {disabled: true}, clip: true,
    };
  }

  const nearest = (xs, at) => xs.reduce((best, v, k) => v !== null && (best < 0 || Math.abs(v - at) < Math.abs(xs[best] - at)) ? k : best, -1);
  function rows(at) {
    return visible().flatMap(i => {
      const k = nearest(x(data.means[i]), at);
      if (k < 0) return [];
      const {mean, low, high} = y(data.means[i]);
      const seeds = state.seeds ? runs(i).map(run => y(run)[nearest(x(run), at)]) : [];
      return [[i, within([mean[k], low[k], high[k]], measured), seeds.map(measured).join(", ")]];
    });
  }
  const place = at => `${data.along.find(each => each.name === state.along).title} ${number(at)}`;
  const words = at => `${place(at)}: ${rows(at).map(([i, text]) => `${data.labels[i]} ${text}`).join("; ")}`;
  function tip(at) {
    const cells = rows(at).map(([i, text, seeds]) =>
      `<tr><td><span style="color:${color(i)}">●</span> ${escaped(data.labels[i])}</td><td>${text}${seeds ? `<br><small>seeds ${seeds}</small>` : ""}</td></tr>`);
    return `<b>${place(at)}</b><table class="tip">${cells.join("")}</table>`;
  }

  function draw() {
    const [low, high] = limits(), window = state.window ?? span(), named = data.along.find(each => each.name === state.along).title;
    made.setOption({
      animation: false, textStyle: font(), grid: {left: 8, right: 18, top: 14, bottom: 78, containLabel: true},
      tooltip: tooltip({trigger: "axis", axisPointer: {type: "line", lineStyle: {color: css("--soft")}}, formatter: found => tip(found[0].axisValue)}),
      toolbox: {top: -40, feature: {dataZoom: {yAxisIndex: "none", brushStyle: {color: css("--accent"), opacity: 0.2}}}},
      dataZoom: [{type: "slider", filterMode: "none", height: 26, bottom: 8, startValue: window[0], endValue: window[1], showDetail: false, brushSelect: false, borderColor: css("--line"), fillerColor: css("--wash"), handleStyle: {color: css("--card"), borderColor: css("--soft")}, moveHandleStyle: {color: css("--soft")}, dataBackground: {lineStyle: {color: css("--line")}, areaStyle: {color: css("--line")}}, selectedDataBackground: {lineStyle: {color: css("--soft")}, areaStyle: {color: css("--line")}}, emphasis: {handleStyle: {borderColor: css("--accent")}, moveHandleStyle: {color: css("--accent")}}}],
      xAxis: axis({type: "value", min: span()[0], max: span()[1], name: named, nameLocation: "middle", nameGap: 26, axisLine: {show: true, onZero: false, lineStyle: {color: css("--soft")}}, axisLabel: {...font(), hideOverlap: true, formatter: v => number(v)}, minInterval: state.along === "epoch" ? 1 : 0}),
      yAxis: axis({type: log() ? "log" : "value", min: low, max: high, splitLine: {show: true, lineStyle: {color: css("--line")}}, axisLabel: {...font(), hideOverlap: true, showMinLabel: log(), showMaxLabel: log(), formatter: v => number(v, 1, 3)}}),
      series: visible().flatMap(i => [band(i), line(i), ...runs(i).map(single)]),
    }, {notMerge: true});
    made.dispatchAction({type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: !matchMedia("(pointer: coarse)").matches});
    for (const button of buttons) button.setAttribute("aria-pressed", shown.has(Number(button.dataset.label)));
    $("curves-log").disabled = !positive();
    $("curves-log").checked = log();
    const {title, log: geometric, reading} = data.quantities[state.quantity];
    $("curves-caption").textContent = `${reading} Lines are ${geometric ? "geometric " : ""}means over seeds, bands their 95 % intervals.`;
    box.setAttribute("aria-label", `${title} against ${named}`);
    Object.assign(box.dataset, {from: window[0], to: window[1], low: low ?? "", high: high ?? "", scale: log() ? "log" : "linear"});
  }

  // A window narrower than two points shows nothing.
  function look(from, to) {
    const [first, final] = span(), least = (final - first) / 100;
    state.window = to - from >= final - first - least ? null : [clamp(from, first, final - least), clamp(to, first + least, final)];
    draw();
    return `from ${number((state.window ?? span())[0])} to ${number((state.window ?? span())[1])}`;
  }
  function zoom(factor) {
    const [from, to] = state.window ?? span(), middle = state.at >= 0 ? clamp(stops()[state.at], from, to) : (from + to) / 2;
    return look(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }
  const stops = () => { const i = visible().find(i => x(data.means[i]).length); return i === undefined ? [] : x(data.means[i]); };
  function move(steps) {
    const [from, to] = state.window ?? span(), all = stops(), allowed = [...all.keys()].filter(k => all[k] >= from && all[k] <= to);
    if (!allowed.length) return "nothing is shown";
    const now = allowed.indexOf(state.at);
    const begin = now >= 0 ? now : steps > 0 ? -1 : allowed.length;
    state.at = allowed[clamp(begin + steps, 0, allowed.length - 1)];
    const series = made.getOption().series.findIndex(each => each.id.startsWith("mean") && each.data.length);
    made.dispatchAction({type: "showTip", seriesIndex: series, dataIndex: state.at});
    return words(all[state.at]);
  }
  const hide = () => { state.at = -1; made.dispatchAction({type: "hideTip"}); made.dispatchAction({type: "updateAxisPointer", currTrigger: "leave"}); };
  const made = chart(box, {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), PageDown: () => move(10), PageUp: () => move(-10),
    Home: () => move(-1e9), End: () => move(1e9), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    0: () => look(...span()), Escape: hide,
  }, hide);

  made.on("datazoom", event => {
    const {start, end, startValue, endValue} = event.batch?.[0] ?? event, [first, final] = span(), at = share => first + (final - first) * share / 100;
    if (startValue !== undefined) look(startValue, endValue); else if (start !== undefined) look(at(start), at(end));
  });
  fill($("curves-quantity"), data.quantities.map(each => each.title));
  fill($("curves-along"), data.along.map(each => each.title));
  $("curves-seeds").disabled = !data.runs.length;
  const on = (id, change) => $(id).addEventListener("change", event => { change(event.target); draw(); });
  on("curves-quantity", target => { state.quantity = Number(target.value); state.log = data.quantities[state.quantity].log; });
  on("curves-along", target => { state.along = data.along[target.value].name; state.window = null; state.at = -1; });
  on("curves-log", target => { state.log = target.checked; });
  on("curves-seeds", target => { state.seeds = target.checked; });
  for (const [id, act] of [["in", () => zoom(0.5)], ["out", () => zoom(2)], ["whole", () => look(...span())]])
    $(`curves-${id}`).addEventListener("click", () => { $("curves-said").textContent = act(); });
  for (const button of buttons) button.addEventListener("click", event => {
    const i = Number(button.dataset.label);
    if (event.shiftKey) { shown.clear(); shown.add(i); } else if (!shown.delete(i)) shown.add(i);
    draw();
  });
  $("curves-all").addEventListener("click", () => { data.labels.forEach((_, i) => shown.add(i)); draw(); });
  draw();
  return draw;
}
