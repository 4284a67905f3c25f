(function () {
  "use strict";
  var root = document.documentElement, button = document.querySelector("button.theme");
  function dark() {
    var chosen = root.getAttribute("data-theme");
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function say() { button.textContent = dark() ? "Light" : "Dark"; }
  button.hidden = false;
  button.addEventListener("click", function () { root.setAttribute("data-theme", dark() ? "light" : "dark"); say(); });
  say();
  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead th").forEach(function (th) {
      if (th.hasAttribute("data-fixed")) return;
      var inner = document.createElement("button");
      inner.type = "button";
      while (th.firstChild) inner.appendChild(th.firstChild);
      th.appendChild(inner);
      inner.addEventListener("click", function () {
        var up = th.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0], column = th.cellIndex;
        table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
        th.setAttribute("aria-sort", up ? "ascending" : "descending");
        Array.from(body.rows).map(function (row) {
          var cell = row.cells[column], value = cell.getAttribute("data-v");
          return { row: row, text: cell.textContent.trim(), value: value === null ? null : parseFloat(value) };
        }).sort(function (a, b) {
          if (a.value === null) return (up ? 1 : -1) * a.text.localeCompare(b.text);
          if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value);
          return (up ? 1 : -1) * (a.value - b.value);
        }).forEach(function (entry) { body.appendChild(entry.row); });
      });
    });
  });
})();
