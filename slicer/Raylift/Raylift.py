"""3D Slicer module that sends loaded radiographs to `raylift serve` and loads the volume that it returns."""

import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from RayliftLib.client import Client, Refused
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

FROM_FILE = "from the file"
VIEWS = ("pa", "ap", "lateral-left", "lateral-right", FROM_FILE)
SETTINGS = "Raylift"


class Raylift(ScriptedLoadableModule):
    """The module as Slicer lists it."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Raylift"
        parent.categories = ["Quantification"]
        parent.contributors = ["The Raylift authors"]
        parent.helpText = (
            "Turns one or two radiographs into a CT-like volume. Start <tt>raylift serve</tt>, load the radiographs, "
            "choose them and their views, and press Reconstruct. For research only; not a medical device."
        )
        parent.acknowledgementText = "Apache-2.0."


class RayliftWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

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
        form.addRow("Token, if the server needs one:", self.token)
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
            form.addRow(f"View of X-ray {number}:", view)
            self.inputs.append((node, view))
        self.refine = qt.QCheckBox("Refine the volume until its projections agree with the X-rays")
        form.addRow(self.refine)
        self.button = qt.QPushButton("Reconstruct")
        self.button.connect("clicked(bool)", self.reconstruct)
        form.addRow(self.button)
        self.message = qt.QLabel()
        self.message.wordWrap = True
        form.addRow(self.message)
        self.layout.addStretch(1)

    def reconstruct(self, _=None):
        """Send the chosen X-rays, wait for the job, and load the volume and its uncertainty."""
        qt.QSettings().setValue(f"{SETTINGS}/url", self.url.text)
        chosen = [(node.currentNode(), view.currentText) for node, view in self.inputs if node.currentNode()]
        if not chosen:
            self.message.text = "Choose at least one loaded X-ray."
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
                views = [None if view == FROM_FILE else view for _, view in chosen]
                client = Client(self.url.text, self.token.text)
                volume, uncertainty, trust = client.reconstruct(
                    files, views, folder, refine=self.refine.checked, progress=progress
                )
            except Refused as problem:
                self.message.text = str(problem)
                return
            finally:
                bar.close()
            volume_node = slicer.util.loadVolume(str(volume), {"name": "Raylift volume"})
            uncertainty_node = (
                slicer.util.loadVolume(str(uncertainty), {"name": "Raylift uncertainty (HU)", "show": False})
                if uncertainty
                else None
            )
        volume_node.GetDisplayNode().AutoWindowLevelOff()
        volume_node.GetDisplayNode().SetWindowLevel(1500, -200)
        if uncertainty_node is not None:
            uncertainty_node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileMagma.txt")
        slicer.util.setSliceViewerLayers(
            background=volume_node, foreground=uncertainty_node, foregroundOpacity=0.0, fit=True
        )
        self.message.text = f"Done. {trust}. Not a medical device."


def file_of(node, path):
    """Return the file that a node was loaded from; without one, write the node as a picture to `path`."""
    instances = node.GetAttribute("DICOM.instanceUIDs")
    if instances:
        return Path(slicer.dicomDatabase.fileForInstance(instances.split()[0]))
    storage = node.GetStorageNode()
    if storage and storage.GetFileName() and Path(storage.GetFileName()).is_file():
        return Path(storage.GetFileName())
    if not slicer.util.saveNode(node, str(path)):
        raise Refused(f"{node.GetName()} cannot be written as a picture; load it from a file")
    return path
