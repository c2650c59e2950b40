"""Which tests stand above the everyday tier, where combinations do: the first ones stay, the rest say the same again.

A test that is slow in itself bears its mark where it stands. Here a row is a pattern of test names (with parameters, in
full), and its tier. `exhaustive` wins over `slow`. tests/test_tiers.py sees that each row still matches something.
"""

from __future__ import annotations

import re

LARGE = r"(?:.*resnet101.*|.*xception\d\d|.*_vainf|.*jfzhang95|.*_paper|deeplabv3plus_resnet50|fcn8s_atonce_vgg16)"
"""Networks of tens of millions of parameters that have a smaller one of the same paper beside them."""

TIERS: tuple[tuple[str, str], ...] = (
    # The contract of all networks: one of each paper every day, the wide ones in CI.
    (rf"test_gradients_reach_every_parameter\[{LARGE}\]", "slow"),
    (rf"test_logits_have_the_size_of_the_image_and_are_the_enlarged_coarse_ones\[{LARGE}\]", "slow"),
    (r"test_gradients_reach_every_parameter\[(?:deeplabv3_resnet50|deeplabv3_mobilenet_v3_large|.*googlenet.*|"
     r"upernet_convnext_(?:small|base|large|xlarge)|fcn_convnext_(?:small|base)|segformer_b[1-5])\]", "slow"),
    (r"test_the_onnx_export_equals_the_network_at_other_sizes\[(?:segformer_b[1-4]|upernet_convnext_(?:small|base|large)|"
     r"fcn_convnext_(?:small|base)|.*_vainf|.*jfzhang95|.*_paper|.*xception(?:41|71)|.*resnet101.*|nonewnet_softmax|"
     r"fcn(?:8s_atonce|16s)_vgg16|fcn32s_.*torchvision|deeplabv1_vgg16_(?:4x4|7x7)|deeplabv2_vgg16_(?:largefov|aspp_s)|"
     r"unet_bilinear|unet_phseg_v5|unetplusplus)\]", "exhaustive"),
    (rf"test_a_network_of_the_catalog_segments_draws_and_opens_again\[(?:{LARGE}|.*vgg16.*)\]", "exhaustive"),
    # Encoders: SMP's families, its three strides; timm's families.
    (r"test_features_are_those_of_smp_with_its_weights_and_its_dilation\[(?:timm-efficientnet-b0|efficientnet-b0|"
     r"mobileone_s0|mit_b0|timm-regnetx_002|tu-mobilenetv3_small_050|timm-skresnet18)-(?:32|16)\]", "slow"),
    (r"test_features_are_those_of_smp_with_its_weights_and_its_dilation\[(?!resnet|mobilenet|mit_b0|mobileone).*-8\]",
     "exhaustive"),
    (r"test_features_are_those_of_smp_with_its_weights_and_its_dilation\[(?:densenet|se_|resnext|vgg|dpn|xception|"
     r"inception|timm-res|timm-tf|timm-gernet|tu-(?!test)).*-16\]", "exhaustive"),
    (r"test_the_way_back_to_smp_is_complete\[.*(?:b0|skresnet|regnet|mobileone|mit).*\]", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[(?:pvt_v2_b0|levit_128s)-.*\]", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[test_vit-(?!dpt|segformer|unet\b).*\]", "slow"),
    (r"test_a_pyramid_goes_with_any_decoder_at_any_size\[(?:convnextv2_atto|efficientnet_lite0|tf_efficientnetv2_b0|"
     r"lcnet_050|mnasnet_small|regnety_002|resnet10t|res2net50.*|legacy_seresnet18|resnetv2_18|densenet121|dpn48b|"
     r"repghostnet_050|repvit_m1|fasternet_t0|edgenext_xx_small|swiftformer_xs|swinv2.*|davit_tiny|tiny_vit.*|"
     r"inception_next_atto|selecsls42|ese_vovnet.*|iformer_t|mobilevit_xxs|hgnetv2_b0)\]", "exhaustive"),
    (r"test_the_export_with_three_decoders_gives_the_same_at_other_sizes\[(?:convnextv2_atto|mobilenetv4.*|lcnet_050|"
     r"mnasnet_small|resnest14d|legacy_seresnet18|skresnet18|resnetv2_18|dla46x_c|hgnetv2_b0|fasternet_t0|starnet_s050|"
     r"edgenext_xx_small|swiftformer_xs|poolformerv2_s12|swinv2.*|davit_tiny|tiny_vit.*|inception_next_atto|selecsls42|"
     r"cs3darknet.*|ese_vovnet.*|test_mambaout|eva02.*|vit_tiny_patch16_dinov3.*|focalnet.*)\]", "exhaustive"),
    (r"test_channels_and_strides_are_what_comes_out_at_an_odd_size\[(?:swinv2.*|vit_small_patch14_reg4.*|pvt_v2_b0|"
     r"edgenext.*|davit_tiny|focalnet.*|efficientvit_b0|repvit_m1|tiny_vit.*|poolformer.*|dla.*|deit.*|eva02.*|"
     r"ghostnet.*|mobilevit.*|resnest.*|tresnet_m|csatv2|efficientvim_m1)\]", "exhaustive"),
    # Decoders: batch norm every day, two more in CI, the rest by hand.
    (r"test_gradients_reach_every_parameter_with_every_norm\[.*-(?:group|None)\]", "slow"),
    (r"test_gradients_reach_every_parameter_with_every_norm\[.*-(?:instance|layer)\]", "exhaustive"),
    (r"test_(?:logits_are_right_at_every_depth|features_that_are_rounded_down_are_met_as_well|"
     r"decoders_that_double_back_to_the_image_do_without_missing_features)\[(?:unetplusplus|manet).*\]", "slow"),
    (r"test_what_smp_saved_loads_here_agrees_and_goes_back\[(?:UnetPlusPlus|MAnet|Linknet|PSPNet|PAN|DeepLabV3|UPerNet|"
     r"DPT)-.*\]", "slow"),
    # What takes many steps or second derivatives, whole trainings, whole scripts of others.
    (r"test_gradients_are_those_of_the_value\[(?:(?:soft_cldice|rmi), multiclass|.*multilabel).*\]", "slow"),
    (r"test_training_without_making_the_repeated_pixels.*\[unetplusplus-options[12]\]", "slow"),
    (r"test_a_data_set_is_opened_once\[train.*\]", "slow"),
    (r"test_the_convert_command", "slow"),
    (r"test_a_run_that_was_stopped_early_is_opened_with_its_best_weights", "slow"),
    (r"test_twice_is_once_but_for_filling_before_another_step", "slow"),
    (r"test_a_list_and_a_stream_of_pictures_give_what_each_gives_alone", "slow"),
    (r"test_logits_on_mobilenet_v2_are_the_papers_at_tiny_sizes_and_any_channels\[1\]", "slow"),
    (r"test_what_declares_too_much_is_refused_before_it_is_allocated", "slow"),
    (r"test_the_filter_is_the_plain_definition_of_the_lattice\[2\]", "slow"),
    (r"test_lines_of_a_journal_that_are_none_of_ours_cost_no_memory_and_no_finished_source", "slow"),
    (r"test_renormalising_keeps_the_function_and_makes_the_mode_of_training_agree_with_it", "slow"),
    (r"test_commands_take_the_folder_of_a_hugging_face_data_set\[train\]", "slow"),
    (r"test_a_run_killed_again_and_again_has_the_losses_of_one_that_was_not", "slow"),
    (r"test_an_encoder_of_one_size_works_at_that_size_and_names_it_at_others\[visformer_tiny\]", "slow"),
    (r"test_the_onnx_export_equals_the_network_at_other_sizes\[(?:segformer_b0|fcn8s_vgg16|pspnet)\]", "slow"),
    (r"test_export_of_the_resnet_equals_torch_at_other_sizes", "slow"),
    (r"test_torchvisions_examples_give_the_same_pictures.*", "slow"),
    (r"test_the_training_step_has_torchvisions_loss.*", "slow"),
    (r"test_a_tiny_run_learns_its_pictures", "slow"),
    (r"test_a_recipe_trains_from_the_command_line_and_is_resumed_by_the_same_command", "slow"),
    (r"test_a_run_that_is_interrupted_goes_on_as_if_it_were_not\[0-33\]", "slow"),
    (r"test_what_only_makes_it_faster_or_smoother_learns_nearly_the_same\[change2\]", "slow"),
    (r"test_a_named_torch_model_is_exported_once_and_then_runs_without_torch", "slow"),
    (r"test_an_embedded_file_carries_its_scores_and_no_trace_of_the_machine", "slow"),
    (r"test_weights_with_the_wrong_hash_are_refused", "slow"),
    (r"test_the_graph_gives_what_the_definition_says", "slow"),
    # Sizes and encoders that say the same as the one that stays.
    (r"test_half_precision_at_512_by_512_is_finite\[dtype1.*\]", "slow"),
    (r"test_half_precision_at_512_by_512_is_finite\[dtype0-(?:soft_cldice|rmi), .*\]", "slow"),
    (r"test_boolean_uint8_and_wider_targets_are_equal\[(?:soft_cldice|rmi), .*\]", "slow"),
    (r"test_gradients_are_those_of_the_value\[(?:dice_cross_entropy, multiclass|focal, gamma 0.5, multiclass|"
     r"lovasz_softmax, by image, multiclass|boundary, multiclass|soft_cldice, binary)\]", "slow"),
    (r"test_logits_are_torchvisions_and_state_dicts_go_both_ways\[.*resnet101\]", "slow"),
    (r"test_logits_are_torchvisions_and_state_dicts_go_both_ways\[deeplabv3_resnet50\]", "slow"),
    (r"test_logits_have_the_size_of_the_image_and_are_the_enlarged_coarse_ones\[(?:deeplabv3|fcn)_resnet50\]", "slow"),
    (r"test_output_stride_32_is_an_undilated_resnet_with_the_same_keys_as_in_r", "slow"),
    (r"test_features_are_those_of_smp_with_its_weights_and_its_dilation\[tu-test_convnext-16\]", "slow"),
    (r"test_xception_is_timms_with_the_same_weights\[xception(?:41-32|71-16)\]", "slow"),
    (r"test_training_without_making_the_repeated_pixels.*\[unet-options[23]\]", "slow"),
    (r"test_what_smp_saved_loads_here_agrees_and_goes_back\[(?:DeepLabV3Plus|FPN)-.*\]", "slow"),
    (r"test_forward_is_coarse_enlarged_with_aligned_corners\[size_hw[1-3]\]", "slow"),
    (r"test_forward_is_coarse_enlarged_at_any_size\[size_hw[12]-.*\]", "slow"),
    (r"test_vainfs_mobilenet_pads_before_it_expands\[size_hw1\]", "slow"),
    (r"test_vainfs_network_at_stride_8_is_torchvisions_and_its_names_survive_the_round_trip", "slow"),
    (r"test_the_plain_mobilenet_encoder_has_the_sizes_it_declares\[(?:8|32)\]", "slow"),
    (r"test_training_needs_two_images_and_then_reaches_everything", "slow"),
    (r"test_gradients_reach_every_parameter_that_learns_at_batch_size_one\[(?!fcn32s_alexnet).*\]", "slow"),
    (r"test_features_of_googlenet_are_torchvisions", "slow"),
    (r"test_scores_are_enlarged_around_the_pixels_they_looked_at\[googlenet.*\]", "slow"),
    (r"test_a_round_trip_through_the_familys_own_names_changes_nothing\[b0-.*\]", "slow"),
    (r"test_logits_are_those_of_transformers\[base-19-depths1-32\]", "slow"),
    (r"test_training_reaches_every_parameter\[.*-upernet_convnext_tiny\]", "slow"),
    (r"test_every_recipe_builds_its_experiment_and_takes_a_step\[isbi_unet\]", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[test_convnext-(?:upernet|fpn|manet|unetplusplus)\]", "slow"),
    (r"test_a_bare_state_dict_says_what_it_is\[PSPNet\]", "slow"),
    (r"test_a_network_of_anyone_gives_the_labels_of_the_definition.*\[(?:SMP|transformers|torch|stride 32|Seq).*\]",
     "slow"),
    (r"test_a_repository_of_the_hub_is_fetched_once_and_then_taken_from_its_cache", "slow"),
    (r"test_a_head_for_other_classes_runs_trains_and_is_saved_for_smp\[(?!Unet\b|FPN|Segformer|DPT).*\]", "slow"),
    (r"test_other_encoders_and_decoders_run_train_and_are_saved_for_smp\[(?!Unet\b|FPN|Segformer|DPT).*\]", "slow"),
    (r"test_the_class_of_that_name_takes_the_same_arguments_and_gives_the_same_tensor\[(?!Unet\b|FPN|DPT).*\]", "slow"),
    (r"test_the_result_has_the_size_of_the_image_at_smaller_depth\[(?!Unet\b|UPerNet|FPN).*\]", "slow"),
    (r"test_a_smaller_depth_carries_nothing_that_no_feature_needs\[(?!resnet|mobilenet_v2|tu-).*\]", "slow"),
    (r"test_features_are_those_of_timm_on_the_image_padded_to_a_multiple\[(?!.*(?:resnet|convnext)).*\]", "slow"),
    (r"test_other_input_channels_share_out_the_filters_as_smp_does\[(?!resnet|mobilenet|mit|timm-eff).*\]", "slow"),
    (r"test_gradients_reach_every_parameter_with_every_norm\[(?!unet-|fpn|pspnet|dpt|segformer).*\]", "slow"),
    (r"test_bands_give_what_the_whole_map_gives", "slow"),
    (r"test_a_caffe_file_gives_the_logits_of_the_release_computed_by_hand\[size_hw0\]", "slow"),
    (r"test_(?:an_smp_model_is_saved_and_exported_as_it_is|export_writes_any_model_and_says_what_is_in_it)", "slow"),
    (r"test_training_without_making_the_repeated_pixels.*\[unetplusplus-options[03]\]", "slow"),
    (r"test_features_are_those_of_smp_with_its_weights_and_its_dilation\[tu-test_convnext-32\]", "slow"),
    (r"test_dpt_takes_the_encoders_that_the_table_gives_it\[tu-.*\]", "slow"),
    (r"test_logits_are_those_of_transformers\[b5-19-depths2\]", "slow"),
    (r"test_channels_and_strides_are_what_comes_out_at_an_odd_size\[densenet121_1\]", "slow"),
    (r"test_classic_dilation_is_timms", "slow"),
    (r"test_vainfs_mobilenet_pads_before_it_expands\[size_hw0\]", "slow"),
    (r"test_logits_are_those_of_the_release_computed_by_hand\[deeplabv1_vgg16_largefov-.*-size_hw1\]", "slow"),
    (r"test_export_of_three_scales_equals_torch_at_other_sizes\[.*\]", "slow"),
    (r"test_decoders_that_double_back_to_the_image_do_without_missing_features\[.*-(?:unetplusplus|manet)\]", "slow"),
    (r"test_gradients_reach_every_parameter\[(?:deeplabv2_vgg16_aspp_s|fcn_resnet50)\]", "slow"),
    (r"test_logits_are_torchvisions_and_state_dicts_go_both_ways\[fcn_resnet50\]", "slow"),
    (r"test_gradients_are_those_of_the_value\[(?:jaccard|dice, area|lovasz_softmax), multiclass\]", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[test_convnext-dpt\]", "slow"),
    (r"test_every_integer_type_is_counted_as_the_definition_says", "slow"),
    (r"test_the_filter_is_the_plain_definition_of_the_lattice\[1\]", "slow"),
    (r"test_a_kill_at_any_write_leaves_the_old_checkpoint_or_the_new_one", "slow"),
    (r"test_a_killed_run_goes_on_and_repeats_no_tile_but_the_last\[47\]", "slow"),
    (r"test_timm_is_imported_once_and_only_by_the_making_of_one_of_its_encoders", "slow"),
    (r"test_export_equals_torch_at_other_sizes", "slow"),
    (r"test_gradients_are_those_of_the_value\[(?:hausdorff, multiclass|rmi, binary)\]", "slow"),
    (r"test_what_only_makes_it_faster_or_smoother_learns_nearly_the_same\[change1\]", "slow"),
    (r"test_features_that_are_rounded_down_are_met_as_well\[(?:linknet|unet)\]", "slow"),
    (r"test_old_names_of_timms_encoders_are_read", "slow"),
    (r"test_of_two_runs_on_one_raster_the_second_says_who_is_at_work\[more1\]", "slow"),
    (r"test_of_three_scales_the_largest_logit_wins\[caffe-.*\]", "slow"),
    (r"test_a_caffe_file_gives_the_logits_of_the_release_computed_by_hand\[size_hw1\]", "slow"),
    # What many tests say of many networks, encoders, losses and layouts: a few of each kind stay.
    (r"test_channels_and_strides_are_what_comes_out_at_an_odd_size\[(?!resnet18|mobilenet_v2|mit_b0|test_).*\]",
     "slow"),
    (r"test_gradients_reach_every_parameter\[(?:nonewnet_softmax|nonewnet_2d|upernet_convnext_tiny|unetplusplus_ds|"
     r"fcn16s_vgg16|unet_phseg_v5|deeplabv1_vgg16_(?:7x7|4x4))\]", "slow"),
    (r"test_logits_have_the_size_of_the_image_and_are_the_enlarged_coarse_ones\[(?:fcn32s_googlenet.*|nonewnet_softmax|"
     r"nonewnet_2d|upernet_convnext_(?:base|large)|segformer_b[1-5]|fcn_convnext_base|fcn16s_vgg16)\]", "slow"),
    (r"test_any_number_of_input_channels\[(?:.*googlenet.*|.*resnet.*|.*convnext_(?:small|base|large|xlarge)|"
     r"segformer_b[1-5]|.*xception.*|nonewnet_.*)\]", "slow"),
    (r"test_logits_are_right_at_every_depth\[[35]-.*\]", "slow"),
    (r"test_one_image_at_a_time_trains_or_is_refused_with_the_reason\[(?:deeplabv3|upernet)\]", "slow"),
    (r"test_the_fast_order_of_segformers_head_changes_rounding_only", "slow"),
    (r"test_training_without_making_the_repeated_pixels.*\[unet-options1\]", "slow"),
    (r"test_gradients_are_those_of_the_value\[(?:mcc|generalised_dice|tversky|focal_tversky|cross_entropy, smooth), "
     r"multiclass\]", "slow"),
    (r"test_gradients_are_those_of_the_value\[(?:binary_cross_entropy, smooth|focal, gamma 0.5|dice_cross_entropy), "
     r"binary\]", "slow"),
    (r"test_half_precision_at_512_by_512_is_finite\[.*\]", "slow"),
    (r"test_half_precision_logits_give_the_loss_of_the_same_numbers_in_float64\[.*(?:multilabel|soft_cldice|rmi).*\]",
     "slow"),
    (r"test_(?:volumes_are_taken_and_agree_with_one_another|any_ignore_index_means_the_same_even_a_negative_one_or_a_class|"
     r"none_has_the_shape_it_says_and_sums_to_the_sum|the_layout_in_memory_does_not_matter|"
     r"a_batch_in_another_order_has_the_same_loss)\[(?:.*multilabel|soft_cldice.*|rmi.*)\]", "slow"),
    (r"test_any_size_down_to_nothing_gives_a_finite_loss_and_gradient", "slow"),
    (r"test_logits_are_those_of_transformers_and_stay_so_through_our_own_file\[(?:swin pools, auxiliary|"
     r"resnet first stage|segformer heads|swin (?:window|more|relu).*|convnext (?:pools|three).*)\]", "slow"),
    (r"test_a_network_of_transformers_brings_the_names_it_was_given", "slow"),
    (r"test_the_first_filters_of_imagenet_weights_are_shared_out_by_one_rule\[(?!resnet18|mobilenet).*\]", "slow"),
    (r"test_a_network_of_the_catalog_segments_draws_and_opens_again\[(?:segnet|unet_phseg_v5|upernet_convnext_base|"
     r"fcn_convnext_base|nonewnet_2d)\]", "slow"),
    (r"test_every_recipe_builds_its_experiment_and_takes_a_step\[(?:ade20k_segformer_b0|coco_deeplabv3.*)\]", "slow"),
    (r"test_create_model_gives_the_trained_network_with_the_logits_and_the_card_of_its_file\[everyday\]", "slow"),
    (r"test_(?:the_teacher_speaks_on_the_grid_of_the_shipped_size|multiply_adds_are_those_of_the_papers|"
     r"nuclei_augmentation_keeps_size_range_and_classes)", "slow"),
    (r"test_a_run_is_opened_as_a_folder_and_as_each_of_its_files", "slow"),
    (r"test_the_generated_pages_and_pictures_are_up_to_date", "slow"),
    (r"test_(?:a_network_is_three_files|a_decoder_is_a_file_and_two_rows)", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[test_vit-dpt\]", "slow"),
    (r"test_a_pyramid_goes_with_any_decoder_at_any_size\[test_mambaout\]", "slow"),
    (r"test_(?:other_encoders_and_decoders_run_train_and_are_saved_for_smp|"
     r"a_head_for_other_classes_runs_trains_and_is_saved_for_smp)\[(?:FPN|DPT)\]", "slow"),
    (r"test_(?:the_same_seed_gives_the_same_weights_training_loss_and_gradients|"
     r"every_spelling_of_trained_weights_loads_the_file|logits_are_torchvisions_and_state_dicts_go_both_ways)"
     r"\[deeplabv3_mobilenet_v3_large\]", "slow"),
    (r"test_published_counts\[.*resnet101\]", "slow"),
    (r"test_crf_refine_is_interpolation_then_the_crf\[300-.*\]", "slow"),
    (r"test_the_best_by_validation_is_kept\[said0-.*\]", "slow"),
    (r"test_curves_are_drawn_where_matplotlib_is", "slow"),
    (r"test_the_bill_is_valid_cyclonedx", "slow"),
    (r"test_labels_are_those_of_monai\[constant\]", "slow"),
    (r"test_jfzhang95s_file_gives_his_logits_computed_by_hand_and_survives_the_round_trip", "slow"),
    (r"test_a_file_that_would_be_wrong_at_another_size_is_not_written", "slow"),
    (r"test_a_composed_network_is_saved_and_found_again", "slow"),
    (r"test_unetplusplus_calls_its_foreground_by_name", "slow"),
    (r"test_a_convolution_of_doubled_pixels_is_that_of_the_repeated_ones", "slow"),
    (r"test_the_way_back_to_smp_is_complete\[tu-.*\]", "slow"),
    (r"test_convolutional_networks_of_timm_dilate\[8-.*\]", "slow"),
    (r"test_surface_distances_are_monais_where_both_structures_exist\[shape0-spacing0\]", "slow"),
    (r"test_tensorflow_variables_give_the_logits_of_the_release_computed_by_hand\[71-.*-size_hw2\]", "slow"),
    (r"test_logits_are_those_of_transformers_and_stay_so_through_our_own_file\[segformer strides\]", "slow"),
    (r"test_labels_names_and_files_are_those_of_the_folder\[False-swin\]", "slow"),
    (r"test_logits_on_mobilenet_v2_are_the_papers_at_tiny_sizes_and_any_channels\[5\]", "slow"),
    (r"test_labels_are_those_of_monai\[gaussian\]", "slow"),
    (r"test_vainfs_files_give_his_logits_computed_by_hand\[size_hw0\]", "slow"),
    (r"test_of_two_runs_on_one_raster_the_second_says_who_is_at_work\[more0\]", "slow"),
    (r"test_bands_equal_one_array_of_sums_bit_for_bit", "slow"),
    (r"test_(?:a_short_run_learns_two_discs_that_overlap|evaluate_scores_each_region_whatever_lies_over_it|"
     r"segment_writes_each_region_whole|a_run_of_regions_goes_on_bit_for_bit|"
     r"the_export_of_a_model_of_regions_gives_the_same_codes)", "slow"),
    (r"test_work_goes_on_after_any_band_as_if_it_had_not_stopped", "slow"),
    (r"test_a_size_that_the_network_does_not_take_cannot_be_checked", "slow"),
    (r"test_a_network_of_the_catalog_segments_draws_and_opens_again\[deeplabv3plus_mobilenet_v2\]", "slow"),
    (r"test_a_pair_works_or_is_refused_with_the_reason\[test_convnext-deeplabv3plus\]", "slow"),
    (r"test_vainfs_names_survive_the_round_trip", "slow"),
    (r"test_(?:a_loss_is_a_function_and_a_row|classes_without_names_are_those_of_the_masks)", "slow"),
    (r"test_features_of_alexnet_are_torchvisions", "slow"),
)  # fmt: skip


def tier_of(test: str) -> str | None:
    """The tier of a test by its name with parameters; None where its own marks decide."""
    found = {tier for pattern, tier in TIERS if re.fullmatch(pattern, test)}
    return "exhaustive" if "exhaustive" in found else next(iter(found), None)
