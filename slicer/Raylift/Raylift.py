"""3D Slicer module: sends loaded radiographs to `raylift serve` and loads the volume in place."""

import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from RayliftLib.client import Client, Refused
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

VIEWS = ("pa", "ap", "lateral-left", "lateral-right", "as the file says")
SETTINGS = "Raylift"


class Raylift(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Raylift"
        parent.categories = ["Quantification"]
        parent.contributors = ["The Raylift authors"]
        parent.helpText = (
            "Lifts one or two radiographs into a CT-like volume. Start <tt>raylift serve</tt>, load the radiographs, "
            "choose them and their views, and press Reconstruct. Research only, not a medical device."
        )
        parent.acknowledgementText = "Apache-2.0."


class RayliftWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def setup(self):
        super().setup()
        box = ctk.ctkCollapsibleButton()
        box.text = "Reconstruct"
        self.layout.addWidget(box)
        form = qt.QFormLayout(box)
        settings = qt.QSettings()
        self.url = qt.QLineEdit(settings.value(f"{SETTINGS}/url", "http://127.0.0.1:8000"))
        form.addRow("Server:", self.url)
        self.token = qt.QLineEdit()
        self.token.echoMode = qt.QLineEdit.Password
        form.addRow("Token, if it asks for one:", self.token)
        self.inputs = []
        for number, preset in enumerate(("pa", "lateral-left"), 1):
            node = slicer.qMRMLNodeComboBox()
            node.nodeTypes = ["vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"]
            node.noneEnabled, node.addEnabled, node.removeEnabled = True, False, False
            node.setMRMLScene(slicer.mrmlScene)
            view = qt.QComboBox()
            view.addItems(VIEWS)
            view.currentIndex = VIEWS.index(preset)
            form.addRow(f"X-ray {number}:", node)
            form.addRow("its view:", view)
            self.inputs.append((node, view))
        self.refine = qt.QCheckBox("Refine until its projections agree with the X-rays")
        form.addRow(self.refine)
        self.button = qt.QPushButton("Reconstruct")
        self.button.connect("clicked(bool)", self.reconstruct)
        form.addRow(self.button)
        self.said = qt.QLabel()
        self.said.wordWrap = True
        form.addRow(self.said)
        self.layout.addStretch(1)

    def reconstruct(self, _=None):
        """Send what is chosen, wait, and load what comes back."""
        qt.QSettings().setValue(f"{SETTINGS}/url", self.url.text)
        chosen = [(node.currentNode(), view.currentText) for node, view in self.inputs if node.currentNode()]
        if not chosen:
            self.said.text = "Choose at least one loaded X-ray."
            return
        bar = slicer.util.createProgressDialog(labelText="Sending the X-rays", maximum=100)

        def progress(note, done):
            bar.labelText, bar.value = note, int(100 * done)
            slicer.app.processEvents()
            return not bar.wasCanceled

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                files = [file_of(node, folder / f"{number}.png") for number, (node, _) in enumerate(chosen)]
                views = [view if view in VIEWS[:-1] else None for _, view in chosen]
                client = Client(self.url.text, self.token.text)
                made = client.reconstruct(files, views, folder, refine=self.refine.checked, progress=progress)
            except Refused as problem:
                self.said.text = str(problem)
                return
            finally:
                bar.close()
            volume, uncertainty, trust = made
            loaded = slicer.util.loadVolume(str(volume), {"name": "Raylift volume"})
            spread = (
                slicer.util.loadVolume(str(uncertainty), {"name": "Raylift uncertainty (HU)", "show": False})
                if uncertainty
                else None
            )
        loaded.GetDisplayNode().AutoWindowLevelOff()
        loaded.GetDisplayNode().SetWindowLevel(1500, -200)
        if spread is not None:
            spread.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileMagma.txt")
        slicer.util.setSliceViewerLayers(background=loaded, foreground=spread, foregroundOpacity=0.0, fit=True)
        self.said.text = f"Done. {trust}. Not a medical device."


def file_of(node, path):
    """The file that a node was loaded from, or else its picture written to `path`."""
    instances = node.GetAttribute("DICOM.instanceUIDs")
    if instances:
        return Path(slicer.dicomDatabase.fileForInstance(instances.split()[0]))
    storage = node.GetStorageNode()
    if storage and storage.GetFileName() and Path(storage.GetFileName()).is_file():
        return Path(storage.GetFileName())
    if not slicer.util.saveNode(node, str(path)):
        raise Refused(f"{node.GetName()} cannot be written as a picture")
    return path
