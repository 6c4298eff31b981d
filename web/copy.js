// Copies the files of the page that are not in the bundle.
import { copyFileSync } from "node:fs";

for (const file of ["index.html", "style.css"]) {
  copyFileSync(new URL(file, import.meta.url), new URL(`../src/raylift/server/static/${file}`, import.meta.url));
}
