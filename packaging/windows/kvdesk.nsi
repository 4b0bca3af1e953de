; Installer for Windows (NSIS): for one person, without administrator rights. Written, never run.
Unicode true
!define NAME "kvdesk"
Name "${NAME}"
OutFile "..\..\build\package\kvdesk-setup.exe"
InstallDir "$LOCALAPPDATA\Programs\${NAME}"
RequestExecutionLevel user
SetCompressor /SOLID lzma

Page directory
Page instfiles
UninstPage uninstConfirm
UninstPage instfiles

Section
  RMDir /r "$INSTDIR"
  SetOutPath "$INSTDIR"
  File /r "..\..\build\package\kvdesk\*.*"
  WriteUninstaller "$INSTDIR\uninstall.exe"
  CreateShortcut "$SMPROGRAMS\${NAME}.lnk" "$INSTDIR\kvdesk.exe"
  WriteRegStr HKCU "Software\Classes\.gguf\OpenWithProgids" "kvdesk.gguf" ""
  WriteRegStr HKCU "Software\Classes\kvdesk.gguf" "" "GGUF language model"
  WriteRegStr HKCU "Software\Classes\kvdesk.gguf\shell\open\command" "" '"$INSTDIR\kvdesk.exe" "%1"'
  WriteRegStr HKCU "Software\Microsoft\Windows\CurrentVersion\Uninstall\${NAME}" "DisplayName" "${NAME}"
  WriteRegStr HKCU "Software\Microsoft\Windows\CurrentVersion\Uninstall\${NAME}" "UninstallString" "$INSTDIR\uninstall.exe"
SectionEnd

Section "Uninstall"
  RMDir /r "$INSTDIR"
  Delete "$SMPROGRAMS\${NAME}.lnk"
  DeleteRegValue HKCU "Software\Classes\.gguf\OpenWithProgids" "kvdesk.gguf"
  DeleteRegKey HKCU "Software\Classes\kvdesk.gguf"
  DeleteRegKey HKCU "Software\Microsoft\Windows\CurrentVersion\Uninstall\${NAME}"
SectionEnd
