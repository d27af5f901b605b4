// Looks up what was measured, and draws it. No step is computed here.
"use strict";
(() => {
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const NAMES = "ABCDEFGHIJ", FULL = 32767, BEYOND = -32768;
const state = {landscape: 0, method: 3, rho: 2, lr: 2, momentum: 0, start: 0, step: 12, beside: -1};
const decoded = new Map();
let playing = 0, spoken = 0;

const here = () => data.landscapes[state.landscape];
const numbers = method => here().methods[data.methods[method].name];
const radii = method => numbers(method).predicted.length;
const rho = method => radii(method) === 1 ? 0 : state.rho;
const short = x => x === null || x === undefined ? "–" : x === 0 ? "0" : Math.abs(x) < 1e-3 ? "< 0.001" : String(Number(x.toPrecision(3)));
const share = x => x > 0 && x < 0.005 ? "< 1 %" : x < 1 && x > 0.995 ? "> 99 %" : `${Math.round(100 * x)} %`;
// Two digits, and no minus before a nought.
const pair = p => `(${p.map(x => (Math.round(100 * x) / 100 || 0).toFixed(2).replace("-", "−")).join(", ")})`;
// Distances of drawn points: stored in 16 bits, they are good for three decimals.
const gap = x => x < 5e-4 ? "less than 0.001" : String(Number(x.toFixed(3)));
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

// One landscape's trajectories: base64, deflate, low bytes before high bytes, differences from step to step.
async function decode(landscape) {
  if (decoded.has(landscape)) return decoded.get(landscape);
  const bytes = await inflate(landscape.blob);
  const count = bytes.length / 2, length = data.steps + 1, values = new Int16Array(count);
  for (let i = 0; i < count; i++) values[i] = bytes[i] | bytes[i + count] << 8;
  for (let i = 0; i < count; i++) if (i % length) values[i] += values[i - 1];
  const each = landscape.rates.length * data.momenta.length * landscape.starts.length * length, begins = [];
  let begin = 0;
  for (const {name} of data.methods) {
    begins.push(begin);
    const radii = landscape.methods[name].predicted.length;
    begin += radii * each * (name === "SGD" ? 2 : 4);
  }
  decoded.set(landscape, {values, begins});
  return decoded.get(landscape);
}

// {w, ascent}: lists of points, null where one lies too far off to be stored.
function trajectory(method) {
  const landscape = here(), found = decoded.get(landscape), length = data.steps + 1;
  if (!found) return {w: [], ascent: []};
  const planes = data.methods[method].name === "SGD" ? 2 : 4;
  let index = rho(method);
  index = index * landscape.rates.length + state.lr;
  index = index * data.momenta.length + state.momentum;
  index = index * landscape.starts.length + state.start;
  const begin = found.begins[method] + index * planes * length;
  const at = (plane, step) => found.values[begin + plane * length + step];
  const point = q => q.includes(BEYOND) ? null : q.map((x, i) => landscape.middle[i] + x / FULL * landscape.half[i]);
  const wrap = x => x << 16 >> 16;
  const w = [], ascent = [];
  for (let t = 0; t < length; t++) {
    const q = [at(0, t), at(1, t)];
    w.push(point(q));
    if (planes === 4) ascent.push(point([wrap(q[0] + at(2, t)), wrap(q[1] + at(3, t))]));
  }
  return {w, ascent};
}

// Drawing.
function place(point) {
  const [x0, x1, y0, y1] = here().window;
  return [(point[0] - x0) / (x1 - x0) * data.width, (y1 - point[1]) / (y1 - y0) * data.height];
}
const spot = point => place(point).map(x => x.toFixed(1)).join(" ");
function line(points) {
  let text = "", pen = false;
  for (const p of points) {
    if (p) text += (pen ? "L" : "M") + spot(p);
    pen = Boolean(p);
  }
  return text;
}
const dots = points => points.filter(Boolean).map(p => `M${spot(p)}h0`).join("");
const draw = (ids, text) => ids.forEach(id => $(id).setAttribute("d", text));

function drawLandscape() {
  const landscape = here(), [x0, x1, y0, y1] = landscape.window;
  $("levels").innerHTML = landscape.levels.map(d => `<path d="${d}"/>`).join("");
  const ring = p => { const [x, y] = place(p); return `M${x - 11} ${y}a11 11 0 1 0 22 0a11 11 0 1 0 -22 0Z`; };
  const cross = p => { const [x, y] = place(p); return `M${x - 9} ${y - 9}l18 18M${x + 9} ${y - 9}l-18 18`; };
  $("marks").innerHTML = landscape.minima.map(p => `<path d="${ring(p)}"/>`).join("")
    + (landscape.saddle ? `<path d="${cross(landscape.saddle)}"/>` : "");
  const ticks = (low, high) => [0, 1, 2, 3, 4].map(k => [k / 4, short(low + (high - low) * k / 4).replace("-", "−")]);
  document.querySelector(".xs").innerHTML = ticks(x0, x1).map(([at, t]) => `<span style="left:${100 * at}%">${t}</span>`).join("");
  document.querySelector(".ys").innerHTML = ticks(y1, y0).map(([at, t]) => `<span style="top:${100 * at}%">${t}</span>`).join("");
  document.querySelector(".names").innerHTML = landscape.starts.map((p, k) => {
    const [x, y] = place(p);
    const side = x > 0.9 * data.width ? -3.2 : 3.2;
    return `<span style="left:${x / data.width * 100 + side}%;top:${y / data.height * 100}%">${NAMES[k]}</span>`;
  }).join("");
  $("key-saddle").hidden = !landscape.saddle;
}

function drawSteps() {
  const {w, ascent} = trajectory(state.method), t = state.step;
  draw(["future"], line(w));
  draw(["trail", "trail-halo"], line(w.slice(0, t + 1)));
  draw(["dots"], dots(w.slice(0, t + 1)));
  draw(["here", "here-halo"], dots([w[t]]));
  const climb = w[t] && ascent[t];
  draw(["climb", "climb-halo"], climb ? line([w[t], ascent[t]]) : "");
  draw(["summit", "summit-halo", "summit-hole"], climb ? dots([ascent[t]]) : "");
  draw(["back"], w[t] && w[t + 1] ? line([w[t], w[t + 1]]) : "");
  const other = state.beside >= 0 ? trajectory(state.beside).w : [];
  draw(["other", "other-line"], line(other));
  $("key-other").hidden = state.beside < 0;
  $("key-climb").hidden = !ascent.length;
  if (state.beside >= 0) $("key-other").querySelector("span").textContent = `${data.methods[state.beside].name}, all steps`;
  [...document.querySelectorAll(".names span")].forEach((e, k) => e.classList.toggle("chosen", k === state.start));
  describe(w, ascent);
}

// Words.
function describe(w, ascent) {
  const landscape = here(), t = state.step, name = data.methods[state.method].name;
  const nearest = p => landscape.minima.map(m => [distance(p, m), m]).sort((a, b) => a[0] - b[0])[0];
  const inside = p => p && p[0] >= landscape.window[0] && p[0] <= landscape.window[1] && p[1] >= landscape.window[2] && p[1] <= landscape.window[3];
  const parts = [`${name} on ${landscape.title}, start ${NAMES[state.start]}, step ${t} of ${data.steps}:`];
  if (w[t]) {
    const [far, minimum] = nearest(w[t]);
    parts.push(`w = ${pair(w[t])}, ${gap(far)} from the minimum ${pair(minimum)}${inside(w[t]) ? "" : ", outside the picture"}.`);
    if (ascent[t]) parts.push(`The ascent point is ${gap(distance(w[t], ascent[t]))} away at ${pair(ascent[t])}.`);
    else if (ascent.length) parts.push("The ascent point is far outside the picture.");
  } else if (w.length) parts.push("w is far outside the picture.");
  const end = w[w.length - 1];
  if (w.length && !end) parts.push("In the end it is lost: the trajectory leaves the picture for good.");
  else if (end) {
    const [far] = nearest(end);
    const held = landscape.saddle && distance(end, landscape.saddle) < far ? `, nearer to the saddle (${gap(distance(end, landscape.saddle))})` : "";
    parts.push(far <= landscape.tolerance ? `After ${data.steps} steps a minimum is reached: ${gap(far)} away.`
      : `After ${data.steps} steps no minimum is reached: ${gap(far)} away${held}.`);
  }
  const text = parts.join(" ");
  $("summary").textContent = $("view-text").textContent = text;
  clearTimeout(spoken);
  if (!playing) spoken = setTimeout(() => { $("said").textContent = text; }, 500);
}

function compare() {
  const landscape = here(), found = numbers(state.method), r = rho(state.method), m = state.momentum, l = state.lr;
  const name = data.methods[state.method].name, lr = landscape.rates[l];
  const success = found.success[r][l][m], predicted = found.predicted[r][m], simulated = found.limit[r][m];
  $("success").textContent = share(success);
  $("success-text").textContent = `of ${data.starts} random starts are within ${landscape.tolerance} of a minimum after ${landscape.runSteps} steps.`;
  $("predicted").textContent = short(predicted);
  $("simulated").textContent = simulated === null ? "none" : short(simulated);
  const side = lr < predicted ? "below" : "beyond";
  $("limit-text").textContent = `Chosen: ${lr}, ${side} the predicted limit of the linear step (curvatures ${landscape.curvatures.map(short).join(" and ")}).`
    + (simulated === null ? " No stable rate was found in the range searched." : "")
    + (name === "SAM" ? ` SAM circles, and counts as stable while it stays within ${landscape.home}.` : "");
  const ends = found.distance[r][l][m], cycle = found.amplitude ? found.amplitude[r][l][m] : null;
  $("distance").textContent = ends === null ? "lost" : short(ends);
  $("amplitude").textContent = name === "SAM" ? (cycle === null ? "none" : short(cycle)) : lr < predicted ? "0" : "none";
  $("distance-text").textContent = `Median distance to a minimum over the same starts after ${landscape.runSteps} steps. `
    + (name === "SAM" ? (cycle === null ? "Past the limit there is no cycle." : "Predicted: the amplitude of SAM's cycle in the steepest direction.")
      : lr < predicted ? "Predicted: nearby it comes to rest, if it has the time." : "Past the limit nothing comes to rest there.");
  $("saddle-card").hidden = !landscape.saddle;
  if (landscape.saddle) {
    const captured = found.capture[r], product = landscape.product[state.rho];
    $("captured").textContent = captured ? "held" : "free";
    $("held").textContent = `${share(found.held[r][l][m])} held`;
    $("held-text").textContent = name === "SGD" ? "A plain gradient step leads away from a saddle, on either side."
      : name.includes("U") ? `rho·m = ${short(product)} ${captured ? "> 1: the ascent point lies beyond the ridge, and its gradient points back, while the learning rate is small." : "≤ 1: the ascent point stays on this side of the ridge."}`
      : `From nearer than ‖g‖ = rho·m = ${short(product)} the normalised ascent overshoots the ridge, whatever rho is, while the learning rate is small.`;
  }
}

function drawMap() {
  const landscape = here(), found = numbers(state.method), m = state.momentum, table = document.querySelector(".map");
  const plain = radii(state.method) === 1;
  table.tHead.innerHTML = `<tr><th scope="col">${plain ? "" : "rho \\ "}learning rate</th>${landscape.rates.map(x => `<th scope="col">${x}</th>`).join("")}<th scope="col">limit, predicted</th><th scope="col">limit, simulated</th></tr>`;
  table.tBodies[0].innerHTML = found.success.map((row, r) => `<tr><th scope="row">${plain ? "no radius" : landscape.radii[r]}</th>`
    + row.map((cell, l) => {
      const chosen = r === rho(state.method) && l === state.lr ? ' aria-current="true"' : "";
      return `<td style="--share:${cell[m]}"${chosen}>${share(cell[m])}</td>`;
    }).join("") + `<td class="limit">${short(found.predicted[r][m])}</td><td class="limit">${found.limit[r][m] === null ? "none" : short(found.limit[r][m])}</td></tr>`).join("");
  $("map-note").textContent = `${data.methods[state.method].name} on ${landscape.title}, momentum ${data.momenta[m]}: share of ${data.starts} random starts within ${landscape.tolerance} of a minimum after ${landscape.runSteps} steps. The frame marks what is chosen above.`;
}

// Controls.
function chips(id, texts, names) {
  $(id).querySelector(".chips").innerHTML = texts.map((text, k) =>
    `<label><input type="radio" name="${id}" value="${k}"${names ? ` aria-label="${names[k]}"` : ""}><span>${text}</span></label>`).join("");
}
const options = (id, texts, first = 0) => {
  $(id).innerHTML = texts.map((text, k) => `<option value="${k + first}">${text}</option>`).join("");
};

function fitControls() {
  const landscape = here();
  state.rho = Math.min(state.rho, landscape.radii.length - 1);
  state.lr = Math.min(state.lr, landscape.rates.length - 1);
  state.start = Math.min(state.start, landscape.starts.length - 1);
  $("rho").max = landscape.radii.length - 1;
  $("lr").max = landscape.rates.length - 1;
  chips("start", landscape.starts.map((_, k) => NAMES[k]), landscape.starts.map((p, k) => `${NAMES[k]}, at ${pair(p)}`));
}

function showControls() {
  const landscape = here(), plain = radii(state.method) === 1;
  $("landscape").value = state.landscape;
  $("beside").value = state.beside;
  for (const id of ["method", "momentum", "start"])
    $(id).querySelectorAll("input").forEach((e, k) => { e.checked = k === state[id]; });
  $("rho").disabled = plain;
  const show = (id, value, text) => { $(id).value = value; $(`${id}-value`).value = text; $(id).setAttribute("aria-valuetext", text); };
  show("rho", state.rho, plain ? "none" : String(landscape.radii[state.rho]));
  show("lr", state.lr, String(landscape.rates[state.lr]));
  show("step", state.step, `${state.step} of ${data.steps}`);
  $("formula").textContent = `f = ${landscape.formula}. ${landscape.about}`;
  $("rule").textContent = data.methods[state.method].rule;
}

async function show(whole) {
  if (whole) { fitControls(); drawLandscape(); }
  showControls();
  try { await decode(here()); } catch (error) {
    $("trouble").hidden = false;
    $("trouble").textContent = "The trajectories could not be unpacked: this page needs a browser of 2023 or newer. The numbers below are right.";
  }
  drawSteps();
  compare();
  drawMap();
  remember();
}

// The view in the address, by values, so that a link stays right when the choices grow.
const FIELDS = {
  landscape: () => data.landscapes.map(x => x.name), method: () => data.methods.map(x => x.name),
  rho: () => here().radii, lr: () => here().rates, momentum: () => data.momenta,
  start: () => here().starts.map((_, k) => NAMES[k]), beside: () => data.methods.map(x => x.name),
};
function address() {
  const words = Object.entries(FIELDS).filter(([name]) => state[name] >= 0).map(([name, of]) => [name, of()[state[name]]]);
  return "#" + new URLSearchParams([...words, ["step", state.step]]);
}
function remember() { try { history.replaceState(null, "", address()); } catch { /* a sandbox may forbid it */ } }
function recall() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, of] of Object.entries(FIELDS)) {
    const found = given.has(name) ? of().map(String).indexOf(given.get(name)) : -1;
    if (found >= 0) state[name] = found;
    else if (name === "beside") state.beside = -1;
  }
  const step = Number(given.get("step"));
  if (given.has("step") && Number.isInteger(step)) state.step = Math.max(0, Math.min(data.steps, step));
}

function stop() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = still.matches ? "To the end" : "Play";
  $("play").setAttribute("aria-pressed", "false");
}
function move(step) { state.step = step; showControls(); drawSteps(); }
function play() {
  if (still.matches) { move(state.step < data.steps ? data.steps : 0); remember(); return; }
  if (playing) { stop(); drawSteps(); remember(); return; }
  if (state.step >= data.steps) move(0);
  playing = setInterval(() => {
    move(state.step + 1);
    if (state.step >= data.steps) { stop(); drawSteps(); remember(); }
  }, 120);
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
}

function theme(value) {
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  $("theme").value = value;
}

options("landscape", data.landscapes.map(x => x.title));
options("beside", ["nothing", ...data.methods.map(x => x.name)], -1);
chips("method", data.methods.map(x => x.name));
chips("momentum", data.momenta.map(String));
$("controls").addEventListener("submit", event => event.preventDefault());
$("controls").addEventListener("input", event => {
  const name = event.target.name || event.target.id;
  state[name] = Number(event.target.value);
  show(name === "landscape");
});
$("step").addEventListener("input", event => { stop(); move(Number(event.target.value)); remember(); });
$("play").addEventListener("click", play);
still.addEventListener("change", stop);
$("theme").addEventListener("input", event => {
  theme(event.target.value);
  try { localStorage.setItem("fenland-theme", event.target.value); } catch { /* not kept */ }
});
$("share").addEventListener("click", async () => {
  remember();
  try { await navigator.clipboard.writeText(location.href); $("shared").textContent = "Copied."; }
  catch { $("shared").textContent = "The link is in the address bar."; }
  setTimeout(() => { $("shared").textContent = ""; }, 4000);
});
addEventListener("hashchange", () => { recall(); show(true); });
try { const kept = localStorage.getItem("fenland-theme"); if (["light", "dark"].includes(kept)) theme(kept); } catch { /* none */ }
recall();
stop();
// For tests and for the curious: what is chosen, and the points that are drawn.
window.explorer = {data, state, trajectory, ready: show(true)};
})();
