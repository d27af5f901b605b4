// Tables whose heads are buttons: they sort by their column, once more the other way round. Blank cells come last.
document.body.classList.add("live");
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], first = [...body.rows];
  if (first.length < 2) continue;
  const value = (row, column) => {
    const cell = row.cells[column], text = (cell.dataset.sort ?? cell.textContent).trim().replace("−", "-");
    const number = Number(text.replace(/(\d),(?=\d{3})/g, "$1"));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(each => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const rows = first.map(row => [value(row, column), row]);
      rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : down * order(a, b));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
