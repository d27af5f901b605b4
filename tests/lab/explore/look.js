// A function of a window and its document: what the browser tests want to know of any page.
(window, document) => {
  const channel = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const bright = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  // "rgb(1, 2, 3)", "rgba(...)" or "color(srgb 0.1 0.2 0.3 / 0.4)" as four numbers of 0 to 1
  const parse = color => {
    const n = (color.match(/[\d.]+(e-?\d+)?/g) || []).map(Number);
    if (n.length < 3) return [0, 0, 0, 0];
    const rgb = n.slice(0, 3).map(c => color.startsWith("color(") ? c : c / 255);
    return [...rgb, n.length > 3 ? n[3] : 1];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = element => {
    if (!element) return [1, 1, 1];
    const color = parse(window.getComputedStyle(element).backgroundColor);
    return color[3] >= 1 ? color.slice(0, 3) : over(color, behind(element.parentElement));
  };
  const ratio = (one, other) => {
    const a = bright(one), b = bright(other);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const all = selector => [...document.querySelectorAll(selector)];
  const box = element => element.getBoundingClientRect();
  const shown = element => element.checkVisibility({visibilityProperty: true, opacityProperty: true}) && box(element).width > 1;
  const ownText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const texts = all("body *").filter(e => ownText(e) && shown(e) && !e.closest("script, noscript, svg, option, [disabled]"));
  const contrast = e => {
    const under = behind(e);
    return [ratio(over(parse(window.getComputedStyle(e).color), under), under), e.textContent.trim().slice(0, 60)];
  };
  const least = list => list.sort((a, b) => a[0] - b[0])[0] || [99, ""];
  const edges = all(".chips span, select").map(e =>
    [ratio(parse(window.getComputedStyle(e).borderTopColor).slice(0, 3), behind(e.parentElement)), e.textContent.slice(0, 30)]);
  const lines = all("#trail, #climb, #summit, #here, #other-line, #marks path").map(e =>
    [ratio(parse(window.getComputedStyle(e).stroke).slice(0, 3), behind(e.closest(".view"))), e.id || "mark"]);
  const ids = all("[id]").map(e => e.id), page = document.documentElement;
  const named = e => e.title || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || (e.labels && e.labels.length);
  const controls = all("input, select, button, summary, a[href]").filter(shown);
  const view = document.querySelector("#view");
  return {
    inner: window.innerWidth, width: page.scrollWidth, background: bright(behind(document.body)),
    weakest: least(texts.map(contrast)), faintest: least([...edges, ...lines]),
    smallest: least(texts.map(e => [parseFloat(window.getComputedStyle(e).fontSize), e.textContent.trim().slice(0, 40)])),
    repeated: ids.filter((id, i) => ids.indexOf(id) !== i),
    dangling: all("[aria-labelledby], label[for], output[for]").flatMap(e =>
      (e.getAttribute("aria-labelledby") || e.getAttribute("for")).split(" ")).filter(id => !ids.includes(id)),
    unnamed: all("svg").filter(e => e.getAttribute("aria-hidden") !== "true" && !(e.querySelector("title") && e.getAttribute("role"))).map(e => e.outerHTML.slice(0, 80)),
    unlabelled: controls.filter(e => /INPUT|SELECT/.test(e.tagName) ? !named(e) : !e.textContent.trim() && !named(e)).map(e => e.outerHTML.slice(0, 80)),
    images: all("img").filter(e => !(e.alt || "").trim()).map(e => e.outerHTML.slice(0, 60)),
    outside: texts.filter(e => !e.closest(".scroll, pre")).filter(e => box(e).right > window.innerWidth + 1 || box(e).left < -1).map(e => e.textContent.trim().slice(0, 60)),
    thin: controls.filter(e => !e.matches("a, summary") && box(e).height < 24).map(e => e.outerHTML.slice(0, 60)),
    picture: view ? [box(view).width, box(view).height] : null,
  };
}
