using MicroVm.Linux;
using MicroVm.Tests.Shared.Fuzz;
using MicroVm.Vmm.Machine;
using MicroVm.Vmm.Tests.Boot;
using MicroVm.Vmm.Tests.Machine;
using MicroVm.Vmm.Tests.Snapshot;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Tests.Fuzz;

/// <summary>Whatever the sections of a state file say, with right checksums: a machine is built, or refused with one sentence.</summary>
public sealed class SnapshotFuzz
{
    [SkippableFact]
    public void Any_state_is_taken_or_refused()
    {
        TestMachines.RequireKvm();
        VmmConfig saved = SavedMachine.Config(1);
        saved.Entropy = true;
        (SafeFd state, SafeFd memory) = SavedMachine.Save(saved, 5);
        using (state)
        using (memory)
        {
            SnapshotFile file = SnapshotFile.Parse(SavedMachine.ReadAll(state));
            int attempts = 0, refused = 0;
            Fuzzing.Run("snapshot-state", random =>
            {
                attempts++;
                using SafeFd changed = ElfBuilder.Memfd(Change(file, random));
                VmmConfig config = SavedMachine.Restored(changed, memory, 1);
                config.Entropy = true;
                try
                {
                    MachineBuilder.Build(config).Dispose();
                }
                catch (SnapshotException e)
                {
                    refused++;
                    Assert.DoesNotContain(e.Message, char.IsControl);
                }
            });
            Assert.True(attempts == 0 || refused > 0, "no state was refused");
        }
    }

    /// <summary>A state with a few numbers changed in a section that is not the header, or with a section cut, missing or of another version.</summary>
    private static byte[] Change(SnapshotFile file, Random random)
    {
        SnapshotWriter writer = new(file.Header);
        int chosen = random.Next(1, file.Sections.Count);
        for (int i = 1; i < file.Sections.Count; i++)
        {
            SnapshotSection section = file.Sections[i];
            byte[] content = section.Content.ToArray();
            int kind = i == chosen ? random.Next(8) : -1;
            switch (kind)
            {
                case 0:
                    continue;
                case 1:
                    content = content[..random.Next(content.Length)];
                    break;
                case >= 2:
                    for (int n = random.Next(1, 5); n > 0 && content.Length > 0; n--)
                    {
                        content[random.Next(content.Length)] = random.Next(3) switch
                        {
                            0 => 0xff,
                            1 => 0,
                            _ => (byte)random.Next(256),
                        };
                    }

                    break;
            }

            writer.Add(section.Name, kind == 7 ? section.Version + 1 : section.Version, content);
        }

        return writer.ToArray();
    }
}
