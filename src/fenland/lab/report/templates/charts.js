// The page's own charts. What stands here serves both kinds: colours, numbers, words for those who do not see them.
const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Significant digits, for losses get small: a fixed number of decimals would make 0.00067 one thousandth.
const significant = (x, least, most) => x !== 0 && Math.abs(x) < 1e-6 ? x.toExponential(most - 1)
  : x.toLocaleString("en", {minimumSignificantDigits: least, maximumSignificantDigits: most});
const number = (x, least = 1, most = 4) => x === null || x === undefined ? "–" : significant(x, least, most).replaceAll("-", "−");
const measured = x => number(x, 4);
const fixed = (x, digits) => x === null ? "–" : x.toFixed(digits).replace("-", "−");
const within = ([mean, low, high], show) => show(mean) + (low === null ? "" : ` (${show(low)} to ${show(high)})`);
const escaped = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const font = () => ({fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12, color: css("--soft")});

// An axis in the page's own ink.
function axis(more) {
  return {
    axisLine: {show: false, lineStyle: {color: css("--soft")}}, axisTick: {show: false}, axisLabel: font(),
    splitLine: {show: false, lineStyle: {color: css("--line")}}, nameTextStyle: font(), ...more,
  };
}

function tooltip(more) {
  return {
    confine: true, transitionDuration: 0, backgroundColor: css("--card"), borderColor: css("--line"),
    textStyle: {...font(), color: css("--ink"), fontSize: 13}, ...more,
  };
}

// A chart in a box that takes keys. `keys` maps a key to what it does, which returns the words to say, or nothing.
function chart(box, keys, leave) {
  const made = echarts.init(box, null, {renderer: "svg"});
  const said = $(`${box.id}-said`);
  new ResizeObserver(() => made.resize()).observe(box);
  box.addEventListener("keydown", event => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const words = act();
    if (words) said.textContent = words;
  });
  box.addEventListener("blur", leave);
  return made;
}

function fill(select, names) {
  select.replaceChildren(...names.map((name, value) => new Option(name, value)));
}

async function begin() {
  const library = document.createElement("script");
  library.textContent = new TextDecoder().decode(await inflate($("echarts").textContent));
  document.head.append(library);
  const data = JSON.parse(new TextDecoder().decode(await inflate($("data").textContent)));
  const draw = [];
  if (data.quantities.length) { $("closer").hidden = false; draw.push(curves(data)); }
  if (data.settings) { $("settings").hidden = false; draw.push(heat(data.settings), parallel(data.settings)); }
  // Each box is named and speaks for itself; the letters in its picture would be read out one by one.
  for (const svg of document.querySelectorAll(".chart svg")) svg.setAttribute("aria-hidden", "true");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw.forEach(each => each()));
}
begin().catch(error => { console.error(error); });
