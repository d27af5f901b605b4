// A function of a frame's window and document: what test_report_browser.py wants to know of the page.
(window, document) => {
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const bright = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const numbers = color => (color.match(/[\d.]+/g) || []).map(Number);
  const solid = color => { const n = numbers(color); return n.length === 3 || n[3] > 0; };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = window.getComputedStyle(e).backgroundColor;
      if (solid(color)) return numbers(color);
    }
    return [255, 255, 255];
  };
  const contrast = element => {
    const style = window.getComputedStyle(element);
    const one = bright(numbers(element.closest("svg") ? style.fill : style.color)), other = bright(behind(element));
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const all = selector => [...document.querySelectorAll(selector)];
  const box = element => element.getBoundingClientRect();
  const scroll = document.querySelector(".scroll"), page = document.documentElement;
  const ids = all("[id]").map(e => e.id);
  const texts = all("h1, h2, h3, p, li, th, td .main, td .below, dt, dd, a, figcaption, code, button, svg text")
    .filter(e => e.textContent.trim());
  const weakest = texts.map(e => [contrast(e), e.textContent.trim()]).sort((a, b) => a[0] - b[0])[0];
  const outside = all("figure").flatMap(figure => [...figure.querySelectorAll("svg text")].filter(text => {
    const inner = box(text), outer = box(figure);
    return inner.left < outer.left || inner.right > outer.right || inner.top < outer.top || inner.bottom > outer.bottom;
  }).map(text => text.textContent));
  const overlapping = all("figure svg").flatMap(svg => {
    const found = [...svg.querySelectorAll("text")];
    return found.flatMap((one, i) => found.slice(i + 1).filter(other => {
      const a = box(one), b = box(other), slack = 1;
      return a.left + slack < b.right && b.left + slack < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
    }).map(other => one.textContent + " on " + other.textContent));
  });
  return {
    inner: window.innerWidth, width: page.scrollWidth, background: bright(behind(document.body)),
    figures: all("figure").map(f => { const b = box(f.querySelector("svg")); return [f.id, b.width, b.height, b.right]; }),
    smallest: Math.min(...all("figure svg text").map(t =>
      parseFloat(window.getComputedStyle(t).fontSize) * box(t.closest("svg")).width / t.closest("svg").viewBox.baseVal.width)),
    weakest, outside, overlapping, repeated: ids.filter((id, i) => ids.indexOf(id) !== i),
    dangling: all("[aria-labelledby]").flatMap(e => e.getAttribute("aria-labelledby").split(" ")).filter(i => !ids.includes(i)),
    unnamed: all("figure svg").filter(s => !s.getAttribute("role") || !s.querySelector("title") || !s.querySelector("desc")).length,
    table: {scrolls: scroll.scrollWidth > scroll.clientWidth, focusable: scroll.tabIndex === 0, name: scroll.getAttribute("aria-labelledby")},
    button: [document.getElementById("copy").hidden, box(document.getElementById("copy")).height],
    first: all(".results tbody tr").map(row => [
      row.cells[0].textContent.trim(), box(row.cells[0]).top,
      [...row.cells].slice(1).map(cell => [parseFloat(window.getComputedStyle(cell.querySelector(".main")).fontSize), Math.round(box(cell).top)]),
    ]),
    resources: window.performance.getEntriesByType("resource").map(e => e.name),
  };
}
