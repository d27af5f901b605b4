// The theme opens its drawer by a label, which a keyboard does not reach. This makes a button of it: Enter and Space
// open, the focus goes to the first entry, and Escape closes and brings it back.
document$.subscribe(() => {
  const box = document.getElementById("__drawer");
  const label = document.querySelector(".md-header label[for='__drawer']");
  if (!box || !label || label.hasAttribute("tabindex")) return;
  const entries = ".md-sidebar--primary a, .md-sidebar--primary label[tabindex='0']";
  const shown = () => [...document.querySelectorAll(entries)].find((e) => e.checkVisibility({visibilityProperty: true}));
  const tell = () => label.setAttribute("aria-expanded", String(box.checked));
  label.tabIndex = 0;
  label.setAttribute("role", "button");
  label.setAttribute("aria-label", "Navigation");
  label.setAttribute("aria-controls", "__drawer");
  const turn = (open) => {
    box.checked = open;
    box.dispatchEvent(new Event("change"));
    if (open) requestAnimationFrame(() => shown()?.focus());
    else label.focus();
  };
  box.addEventListener("change", tell);
  label.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    turn(!box.checked);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && box.checked) turn(false);
  });
  tell();
});
