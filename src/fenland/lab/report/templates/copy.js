// The button beside the command, where the page has one.
if (document.getElementById("copy")) {
  const button = document.getElementById("copy"), text = document.getElementById("command");
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(text);
    try { await navigator.clipboard.writeText(text.textContent); button.textContent = "Copied"; }
    catch { button.textContent = "Selected"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}
