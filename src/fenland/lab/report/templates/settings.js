// A sweep as a map over two of its fields, and as lines through all of them.
const shade = (colours, share) => {
  const at = clamp(share, 0, 1) * (colours.length - 1), k = Math.min(Math.floor(at), colours.length - 2), part = at - k;
  const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  const [a, b] = [rgb(colours[k]), rgb(colours[k + 1])];
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * part)).join(",")})`;
};
const spread = values => { const there = values.filter(v => v !== null); return [Math.min(...there), Math.max(...there)]; };
const mean = (settings, row, q) => `${settings.quantities[q].title} ${within(row.values[q], v => fixed(v, settings.quantities[q].digits))}`;
const seeds = row => `${row.n} seed${row.n === 1 ? "" : "s"}${row.diverged ? `, ${row.diverged} diverged` : ""}`;
const told = (settings, row, q) => `${mean(settings, row, q)}, ${seeds(row)}`;

function heat(settings) {
  const box = $("heat"), several = [...settings.fields.keys()].filter(f => settings.fields[f].values.length > 1);
  const wanted = title => several.find(f => settings.fields[f].title === title);
  const ranked = [wanted("Learning rate"), wanted("Radius rho"), ...several].filter((f, k, all) => f !== undefined && all.indexOf(f) === k);
  const state = {x: ranked[0], y: ranked[1] ?? ranked[0], q: 0, held: {}, at: null};
  const better = (q, a, b) => settings.quantities[q].most ? a > b : a < b;
  const best = () => settings.rows.filter(row => row.values[state.q][0] !== null).reduce((a, b) => a && !better(state.q, b.values[state.q][0], a.values[state.q][0]) ? a : b, null);
  const others = () => several.filter(f => f !== state.x && f !== state.y);

  // One choice for each field that does not span the map: the best setting's value at first.
  function choices() {
    const top = best();
    $("heat-held").replaceChildren(...others().map(f => {
      const label = document.createElement("label"), select = document.createElement("select");
      fill(select, settings.fields[f].values);
      state.held[f] ??= top ? top.at[f] : 0;
      select.value = state.held[f];
      select.addEventListener("change", () => { state.held[f] = Number(select.value); draw(); });
      label.append(settings.fields[f].title, select);
      return label;
    }));
  }
  const cells = () => settings.rows.filter(row => others().every(f => row.at[f] === state.held[f]));
  // The values of a field that the cells have: no row for a radius that this optimizer was not run with.
  const used = f => [...settings.fields[f].values.keys()].filter(k => cells().some(row => row.at[f] === k));
  const words = row => `${settings.fields[state.x].title} ${settings.fields[state.x].values[row.at[state.x]]}, ${settings.fields[state.y].title} ${settings.fields[state.y].values[row.at[state.y]]}: ${told(settings, row, state.q)}`;

  function draw() {
    const there = cells(), [low, high] = spread(there.map(row => row.values[state.q][0])), {digits, most} = settings.quantities[state.q];
    const shades = most ? settings.colours : [...settings.colours].reverse();
    const [xs, ys] = [state.x, state.y].map(f => ({title: settings.fields[f].title, used: used(f)})), few = xs.used.length <= 8;
    const name = (f, k) => settings.fields[f].values[k];
    const text = share => { const [r, g, b] = shade(shades, share).match(/\d+/g); return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#101418" : "#ffffff"; };
    made.setOption({
      animation: false, textStyle: font(), grid: {left: 8, right: 18, top: 28, bottom: 76, containLabel: true},
      tooltip: tooltip({trigger: "item", formatter: found => escaped(words(there[found.dataIndex])).replace(": ", "<br>")}),
      xAxis: axis({type: "category", data: xs.used.map(k => name(state.x, k)), name: xs.title, nameLocation: "middle", nameGap: 24}),
      yAxis: axis({type: "category", data: ys.used.map(k => name(state.y, k)), name: ys.title, nameLocation: "end", nameTextStyle: {...font(), align: "left"}}),
      visualMap: {type: "continuous", min: low, max: high > low ? high : low + 1, dimension: 2, orient: "horizontal", left: "center", bottom: 4, itemWidth: 14, itemHeight: 150, calculable: false, text: [fixed(high, digits), fixed(low, digits)], textStyle: font(), inRange: {color: shades}},
      series: [{
        type: "heatmap", emphasis: {itemStyle: {borderColor: css("--ink"), borderWidth: 3}},
        data: there.map(row => {
          const value = row.values[state.q][0], share = high > low ? (value - low) / (high - low) : 0.5;
          return {value: [xs.used.indexOf(row.at[state.x]), ys.used.indexOf(row.at[state.y]), value ?? "-"], label: {show: few && value !== null, color: text(share), formatter: fixed(value, digits)}};
        }),
        itemStyle: {borderColor: css("--card"), borderWidth: 2},
      }],
    }, {notMerge: true});
    const top = best();
    $("heat-best").textContent = top ? `Best of all settings: ${top.title}, ${told(settings, top, state.q)}.` : "";
    box.setAttribute("aria-label", `${settings.quantities[state.q].title} by ${xs.title} and ${ys.title}`);
    box.dataset.cells = there.length;
  }
  function move(dx, dy) {
    const at = state.at, there = cells(), top = there.indexOf(best());
    const from = at ?? there[Math.max(0, top)]?.at ?? [];
    const beside = (f, by) => used(f)[used(f).indexOf(from[f]) + by];
    const goal = at === null ? from : from.map((v, f) => f === state.x ? beside(f, dx) : f === state.y ? beside(f, dy) : v);
    const k = there.findIndex(row => row.at[state.x] === goal[state.x] && row.at[state.y] === goal[state.y]);
    if (k < 0) return "";
    hide();
    state.at = there[k].at;
    made.dispatchAction({type: "highlight", seriesIndex: 0, dataIndex: k});
    made.dispatchAction({type: "showTip", seriesIndex: 0, dataIndex: k});
    return words(there[k]);
  }
  const hide = () => { state.at = null; made.dispatchAction({type: "downplay", seriesIndex: 0}); made.dispatchAction({type: "hideTip"}); };
  const made = chart(box, {ArrowRight: () => move(1, 0), ArrowLeft: () => move(-1, 0), ArrowUp: () => move(0, 1), ArrowDown: () => move(0, -1), Escape: hide}, hide);
  for (const [id, key, names, values] of [
    ["heat-x", "x", ranked.map(f => settings.fields[f].title), ranked], ["heat-y", "y", ranked.map(f => settings.fields[f].title), ranked],
    ["heat-quantity", "q", settings.quantities.map(each => each.title), [...settings.quantities.keys()]],
  ]) {
    fill($(id), names);
    $(id).value = values.indexOf(state[key]);
    $(id).addEventListener("change", event => { state[key] = values[event.target.value]; state.at = null; choices(); draw(); });
  }
  choices();
  draw();
  return draw;
}

function parallel(settings) {
  const box = $("parallel"), q = 0, {colours} = settings, state = {at: -1};
  const fields = [...settings.fields.keys()].filter(f => settings.fields[f].values.length > 1);
  const ranked = [...settings.rows].filter(row => row.values[q][0] !== null).sort((a, b) => b.values[q][0] - a.values[q][0]);
  const [low, high] = spread(ranked.map(row => row.values[q][0]));
  const share = row => high > low ? (row.values[q][0] - low) / (high - low) : 0.5;
  const words = row => `${row.title}: ${[...settings.quantities.keys()].map(k => mean(settings, row, k)).join("; ")}; ${seeds(row)}`;

  function draw() {
    // Lines need contrast with the page: the dark end of the scale on a light one, the light end on a dark one.
    const lines = matchMedia("(prefers-color-scheme: dark)").matches ? colours.slice(4) : colours.slice(0, 6);
    const narrow = box.clientWidth < 560, dim = fields.map(f => settings.fields[f]);
    // On a phone the axes lie below each other.
    const place = narrow ? {layout: "vertical", left: 112, right: 24, top: 16, bottom: 24} : {left: 40, right: 60, top: 44, bottom: 24};
    const look = axis({nameTextStyle: {...font(), color: css("--ink"), width: narrow ? 96 : 110, overflow: "break"}, nameLocation: narrow ? "start" : "end", nameGap: narrow ? 10 : 14, axisLine: {show: true, lineStyle: {color: css("--soft")}}, areaSelectStyle: {width: 22, borderColor: css("--accent"), color: css("--accent"), opacity: 0.25}});
    made.setOption({
      animation: false, textStyle: font(), parallel: {...place, parallelAxisDefault: look}, tooltip: tooltip({trigger: "item", formatter: found => escaped(words(ranked[found.dataIndex])).replace(": ", "<br>").replaceAll("; ", "<br>")}),
      parallelAxis: [
        ...dim.map((field, k) => ({dim: k, name: field.title, type: "category", data: field.values})),
        ...settings.quantities.map((each, k) => ({dim: dim.length + k, name: each.title, type: "value", scale: true, inverse: !each.most, ...(each.most ? {} : {nameLocation: narrow ? "end" : "start"})})),
      ],
      series: [{
        type: "parallel", smooth: 0.12, inactiveOpacity: 0.06, activeOpacity: 1,
        emphasis: {lineStyle: {width: 4, opacity: 1}},
        data: ranked.map((row, k) => ({
          value: [...fields.map(f => settings.fields[f].values[row.at[f]]), ...row.values.map(v => v[0] ?? "-")],
          lineStyle: {color: shade(lines, share(row)), width: k === state.at ? 5 : 1.6, opacity: state.at < 0 || k === state.at ? 0.95 : 0.25},
        })),
      }],
    }, {notMerge: true});
    box.setAttribute("aria-label", `All settings, through ${[...dim, ...settings.quantities].map(each => each.title).join(", ")}`);
  }
  const go = k => { state.at = clamp(k, 0, ranked.length - 1); draw(); return `${state.at + 1} of ${ranked.length}. ${words(ranked[state.at])}`; };
  const show = words => { $("parallel-best").textContent = words; return words; };
  const hide = () => { if (state.at >= 0) { state.at = -1; draw(); } };
  const made = chart(box, {
    ArrowDown: () => show(go(state.at + 1)), ArrowUp: () => show(go(state.at - 1)), Home: () => show(go(0)), End: () => show(go(ranked.length - 1)), Escape: hide,
  }, hide);
  made.on("axisareaselected", () => {
    const chosen = made.getModel().getSeriesByIndex(0).getRawIndicesByActiveState("active");
    show(chosen.length && chosen.length < ranked.length ? `${chosen.length} of ${ranked.length} settings are chosen; the best of them is ${words(ranked[Math.min(...chosen)])}` : "");
  });
  draw();
  return draw;
}
